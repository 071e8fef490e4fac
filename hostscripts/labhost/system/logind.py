"""systemd-logind, by loginctl(1): sessions, and user managers that outlive them."""

from labhost.system import log
from labhost.system.processes import Result, run

SECONDS = 8.0


def loginctl(*words: str) -> Result:
    """What loginctl says. A logind that answers nobody any more is restarted; that ends no session.

    It was seen when a name that lingers had come to another uid, see accounts.py; an administrator may do that too.
    """
    command = ["/usr/bin/loginctl", *words]
    done = run(command, timeout=SECONDS)
    if done.timed_out or b"message queue" in done.err:
        log.write(f"systemd-logind is restarted: {done.error_line}", warning=True)
        run(["/usr/bin/systemctl", "restart", "systemd-logind.service"], timeout=20)
        done = run(command, timeout=20)
    return done
