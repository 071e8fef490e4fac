"""Commands inside an id map whose account is gone already (lxc-usernsexec needs the account)."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from labhost.errors import LabhostError
from labhost.host import SUBUID_COUNT
from labhost.system.openat2 import directory
from labhost.system.processes import die_with_parent, environment
from labhost.system.user_namespaces import fork_mapped


def run(subuid: int, folder: Path, command: Sequence[str], *, timeout: float) -> bool:
    """Runs a command in `folder` as root of the map 0 -> subuid; True if it succeeded. LabhostError after `timeout`."""
    name = os.path.basename(command[0])
    with directory(folder) as fd:
        # By its descriptor: perhaps only root can reach the folder by its path.
        try:
            child = fork_mapped(subuid, SUBUID_COUNT, lambda: _execute(fd, command))
        except OSError as error:
            text = f"{command[0]} cannot be run: {error.strerror}"
            raise LabhostError(text, reason="command_not_run", command=name) from error
    deadline = time.monotonic() + timeout
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        if time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise LabhostError(f"{name} took too long", reason="command_timed_out", command=name)
        time.sleep(0.01)


def _execute(folder: int, command: Sequence[str]) -> None:
    os.setsid()
    os.fchdir(folder)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    die_with_parent()  # last: a change of ids clears it
    os.execve(command[0], list(command), environment(None))
