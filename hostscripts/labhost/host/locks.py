"""Locks between labhost processes. A killed process holds none.

The lock of a person is taken before the shared ones, `mounts` after all others.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from labhost.errors import Busy
from labhost.host.config import Host
from labhost.system.openat2 import closing


@contextmanager
def hold(host: Host, lock: str, *, seconds: float, doing: str) -> Iterator[None]:
    """Holds a lock; Busy, which shows `doing`, if another process holds it for longer than `seconds`."""
    folder = host.paths.state / "locks"
    folder.mkdir(mode=0o700, exist_ok=True)
    deadline = time.monotonic() + seconds
    flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW  # also on a read-only disk
    while True:
        with closing(os.open(folder / lock, flags, 0o600)) as fd:
            take(fd, deadline, lock, doing)
            if _is_current(fd, folder / lock):
                yield
                return


# Of the whole server: host accounts with their ids and addresses; all key files and the record of applied keys; the
# port rules of iptables; the assignment of forwarded ports; the unpacked templates.
accounts = partial(hold, lock="accounts", seconds=60, doing="accounts are being changed")
keys = partial(hold, lock="keys", seconds=60, doing="keys are being written")
rules = partial(hold, lock="rules", seconds=30, doing="port rules are being set")
ports = partial(hold, lock="ports", seconds=30, doing="ports are being assigned")
templates = partial(hold, lock="templates", seconds=900, doing="the template is being unpacked")


def user(host: Host, name: str, *, seconds: float = 120, doing: str = "being changed") -> AbstractContextManager[None]:
    """One person's container and state file."""
    return hold(host, f"user-{name}", seconds=seconds, doing=f"{name}'s container is {doing}")


def mounts(host: Host, name: str) -> AbstractContextManager[None]:
    """One person's mounts. Held briefly, also by a push while another process holds the person's own lock."""
    return hold(host, f"mounts-{name}", seconds=30, doing="files are being attached")


def take(fd: int, deadline: float, lock: str, doing: str) -> None:
    """Busy if another process holds the lock file for longer."""
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                text = f"another command is running ({doing}); try again in a minute"
                raise Busy(text, reason="lock_held", lock=lock, doing=doing) from None
            time.sleep(0.05)


def _is_current(fd: int, path: Path) -> bool:
    """False if the state was moved to another file system while this process waited, see admin/state_move.py."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
