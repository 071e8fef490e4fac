"""Processes inside an id map for which there is no account any more (lxc-usernsexec needs one)."""

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from labhost.errors import LabhostError
from labhost.host.config import SUBUID_COUNT
from labhost.system.processes import environment

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def run_in_map(subuid: int, folder: Path, words: Sequence[str], *, timeout: float) -> bool:
    """Runs words in `folder` as root of the map 0 -> subuid, see user_namespaces(7); True if they succeeded."""
    told, tell = os.pipe()
    going, go = os.pipe()
    child = os.fork()
    if child == 0:
        _child(folder, words, tell, (going, go))
    os.close(tell)
    os.close(going)
    try:
        if os.read(told, 1) == b"u":
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{child}/{name}").write_text(f"0 {subuid} {SUBUID_COUNT}\n")
            os.write(go, b"g")
    finally:
        os.close(told)
        os.close(go)
    return _wait(child, words, time.monotonic() + timeout)


def _child(folder: Path, words: Sequence[str], tell: int, gate: tuple[int, int]) -> None:
    """Never returns. The folder is entered as root, for nobody else may reach it by its name."""
    try:
        os.setsid()
        os.chdir(folder)
        if _libc.unshare(_CLONE_NEWUSER) == 0:
            os.close(gate[1])
            os.write(tell, b"u")
            if os.read(gate[0], 1) == b"g":
                os.setgroups([])
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
                null = os.open(os.devnull, os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(null, fd)
                _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of ids would have cleared it
                os.execve(words[0], list(words), environment(None))
    finally:
        os._exit(127)


def _wait(child: int, words: Sequence[str], deadline: float) -> bool:
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        if time.monotonic() >= deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise LabhostError(f"{os.path.basename(words[0])} took too long")
        time.sleep(0.01)
