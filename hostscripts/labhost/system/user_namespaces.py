"""Child processes in a new user namespace with a map of ids, see user_namespaces(7)."""

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

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
