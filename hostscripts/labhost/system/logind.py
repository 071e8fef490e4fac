"""systemd-logind: sessions, and user managers that outlive them."""

import re

from labhost.system import log, process_table
from labhost.system.process_table import Process
from labhost.system.processes import Result, run

SECONDS = 8.0
END_SECONDS = 10.0
SSHD = ("sshd", "sshd-session")


def loginctl(*arguments: str) -> Result:
    """Runs loginctl(1). A logind that no longer answers is restarted, which ends no session.

    logind hangs when a lingering name moves to another uid (see linux_accounts.py).
    """
    command = ["/usr/bin/loginctl", *arguments]
    result = run(command, timeout=SECONDS)
    if result.timed_out or b"message queue" in result.err:
        log.write(f"restarting systemd-logind: {result.error_line}", warning=True)
        run(["/usr/bin/systemctl", "restart", "systemd-logind.service"], timeout=20)
        result = run(command, timeout=20)
    return result


def end_sessions(name: str, uid: int) -> None:
    """Kill the person's logins on this server and all that runs in them, also as root: sudo, labhost and its children.

    Their user manager and container go on. Needs no logind. LabhostError if something does not end.
    """
    process_table.end(lambda table: of_sessions(table, uid), seconds=END_SECONDS, owner=name)


def of_sessions(table: list[Process], uid: int) -> list[Process]:
    """What belongs to the sessions of this uid: by their cgroups, or as descendants of their sshd where it has none."""
    scope = re.compile(rf"/user\.slice/user-{uid}\.slice/session-[^/]+\.scope(/.*)?")
    found = {process.pid for process in table if any(map(scope.fullmatch, process.cgroups))}
    found |= {process.pid for process in table if process.uid == uid and process.name in SSHD}
    while more := {process.pid for process in table if process.parent in found} - found:
        found |= more
    return [process for process in table if process.pid in found]
