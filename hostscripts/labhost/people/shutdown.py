"""The steps of a removal or suspension that end what runs for a person: sessions, port rules, container, manager."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from labhost import lxc
from labhost.container import lifecycle
from labhost.errors import LabhostError
from labhost.host import SUBUID_COUNT, User
from labhost.network import flows
from labhost.people.steps import Run, Step
from labhost.system import logind, processes

STOP_GRACE = 10
END_SECONDS = 20.0


def _sessions(run: Run) -> None:
    """Ends the person's logins on this server; their container and user manager go on."""
    if not run.has_account:
        return
    listed = _loginctl("show-user", run.user.name, "--property=Sessions", "--value")
    for session in listed.split():
        if _loginctl("show-session", session, "--property=Class", "--value").strip() == "user":
            _loginctl("terminate-session", session)


def _loginctl(*arguments: str) -> str:
    """loginctl's answer; empty when it does not know the person, which is no error here."""
    return logind.loginctl(*arguments).out.decode("ascii", "replace")


def _container(run: Run) -> None:
    if not run.has_account or not lxc.is_running(run.host, run.account):
        return
    try:
        lxc.stop(run.host, run.account, grace=STOP_GRACE)
    except LabhostError as error:
        run.progress.write(f"warning: {error}; killing its processes instead")
    flows.forget(run.user.address)


def _manager(run: Run) -> None:
    user, has_account = run.user, run.has_account
    if has_account:
        _loginctl("disable-linger", user.name)
        processes.run(["/usr/bin/systemctl", "stop", f"user@{user.uid}.service"], timeout=40)
        _loginctl("terminate-user", user.name)
    Path("/var/lib/systemd/linger", user.name).unlink(missing_ok=True)
    _kill_processes(user, own=has_account)


def _kill_processes(user: User, *, own: bool) -> None:
    """Kills whatever runs under the person's subordinate ids and, with `own`, under their uid."""
    ids = range(user.subuid, user.subuid + SUBUID_COUNT) if user.subuid else range(0)
    deadline = time.monotonic() + END_SECONDS
    while found := [pid for pid, uid in _list_processes() if uid in ids or (own and uid == user.uid)]:
        if time.monotonic() >= deadline:
            pids = ", ".join(map(str, found[:5]))
            text = f"processes of {user.name} do not end ({pids})"
            raise LabhostError(text, reason="processes_left", name=user.name, pids=pids)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _list_processes() -> list[tuple[int, int]]:
    """Pid and uid of every process."""
    found = []
    for entry in os.scandir("/proc"):
        with suppress(FileNotFoundError):
            if entry.name.isdigit():
                found.append((int(entry.name), entry.stat().st_uid))
    return found


STEPS = (
    Step("sessions", "ending open sessions", _sessions),
    Step("rules", "removing the port rules", lambda run: lifecycle.apply_rules(run.host)),
    Step("container", "stopping the container", _container),
    Step("manager", "ending all processes", _manager),
)
