"""systemd-logind, by loginctl(1): sessions, and user managers that outlive them."""

from labhost.system import log
from labhost.system.processes import Result, run

SECONDS = 8.0


def loginctl(*arguments: str) -> Result:
    """Runs loginctl. A logind that no longer answers is restarted, which ends no session.

    logind hangs when a lingering name moves to another uid (see linux_accounts.py).
    """
    command = ["/usr/bin/loginctl", *arguments]
    result = run(command, timeout=SECONDS)
    if result.timed_out or b"message queue" in result.err:
        log.write(f"restarting systemd-logind: {result.error_line}", warning=True)
        run(["/usr/bin/systemctl", "restart", "systemd-logind.service"], timeout=20)
        result = run(command, timeout=20)
    return result
