"""Commands that run as root of a person's id map, but with the host's programs, in a folder of the person's.

They are this process's own children, so their status is the true one: lxc-usernsexec answers 0 for a child that was
killed, and needs an account. It need not exist any more, and perhaps only root can reach the folder.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

from labhost.errors import LabhostError
from labhost.host import SUBUID_COUNT
from labhost.system import Process, Result, finish, openat2, processes, user_namespaces


def spawn(subuid: int, folder: Path, command: Sequence[str], *, stdin: IO[bytes] | None = None) -> Process:
    """Starts a command in `folder` as root of the map 0 -> subuid. LabhostError; OSError if `folder` is none."""
    import subprocess  # here, since set-keys imports this module, but never calls it

    with openat2.directory(folder) as place:
        try:
            with openat2.closing(user_namespaces.create(subuid, SUBUID_COUNT)) as namespace:
                prepare = partial(_enter, place, namespace)
                return processes.spawn(command, stdin=stdin or processes.DEVNULL, prepare=prepare)
        except (OSError, subprocess.SubprocessError) as error:
            text = f"{command[0]} cannot be run: {getattr(error, 'strerror', None) or 'its ids cannot be taken'}"
            raise LabhostError(text, reason="command_not_run", command=os.path.basename(command[0])) from error


def run(
    subuid: int,
    folder: Path,
    command: Sequence[str],
    *,
    timeout: float,
    stdin: IO[bytes] | None = None,
    max_output: int = processes.MAX_OUTPUT,
) -> Result:
    """The result of such a command, which is killed after `timeout` seconds; LabhostError if it cannot be started."""
    process = spawn(subuid, folder, command, stdin=stdin)
    return finish(process, command, timeout=timeout, max_output=max_output)


def _enter(folder: int, namespace: int) -> None:
    os.fchdir(folder)
    user_namespaces.enter(namespace)
    processes.die_with_parent()  # last: a change of ids clears it
