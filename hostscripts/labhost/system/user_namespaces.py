"""User namespaces with a map of ids, and child processes in them, see user_namespaces(7)."""

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

from labhost.system.openat2 import closing

_CLONE_NEWUSER = 0x10000000
_libc = ctypes.CDLL(None, use_errno=True)


def fork_mapped(first: int, count: int, action: Callable[[], object]) -> int:
    """Forks a child that calls `action` in a namespace whose ids 0..count-1 are first..first+count-1 outside.

    Returns its pid; the caller waits for it. Its status is 0 after `action`, 127 after an error. OSError without one.
    """
    import socket  # here, since set-keys imports this module, but never calls it

    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            here.close()
            if _libc.unshare(_CLONE_NEWUSER) == 0 and there.send(b"y") and there.recv(1):
                action()
                os._exit(0)
        finally:
            os._exit(127)
    there.close()
    with here:
        try:
            if not here.recv(1):
                raise OSError(errno.EPERM, "no user namespace can be created")
            for kind in ("uid", "gid"):
                Path(f"/proc/{child}/{kind}_map").write_text(f"0 {first} {count}\n")
            here.send(b"y")
        except OSError:
            here.close()  # the child ends
            os.waitpid(child, 0)
            raise
    return child


def create(first: int, count: int) -> int:
    """A descriptor of a new namespace in which 0..count-1 are first..first+count-1 outside; OSError."""
    gate, open_gate = os.pipe()

    def wait() -> None:
        os.close(open_gate)
        os.read(gate, 1)  # until the parent has closed its end, or is gone

    with closing(gate):
        child = fork_mapped(first, count, wait)
        try:
            return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(open_gate)
            os.waitpid(child, 0)


def enter(namespace: int) -> None:
    """Makes this process root of the namespace, and of nothing else; OSError. It must have one thread."""
    if _libc.setns(ctypes.c_int(namespace), ctypes.c_int(_CLONE_NEWUSER)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
