"""Locks between labhost processes. A killed process holds none.

The lock of a person is taken before the shared ones, `mounts` after all others.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from labhost.errors import Busy
from labhost.host.config import Host

ACCOUNTS, KEYS, RULES, TEMPLATES = "accounts", "keys", "rules", "templates"


def user_lock(name: str) -> str:
    return f"user-{name}"


def user(host: Host, name: str, *, seconds: float = 120, doing: str = "") -> AbstractContextManager[None]:
    """One person's container and state file. `doing` is shown to a command that cannot get the lock."""
    return hold(host, f"user-{name}", seconds=seconds, doing=doing or f"{name}'s container is being changed")


def accounts(host: Host) -> AbstractContextManager[None]:
    """The host accounts, their ids and addresses."""
    return hold(host, "accounts", seconds=60, doing="accounts are being changed")


def keys(host: Host) -> AbstractContextManager[None]:
    """All key files and the record of applied keys."""
    return hold(host, "keys", seconds=60, doing="keys are being written")


def rules(host: Host) -> AbstractContextManager[None]:
    """The port rules of iptables."""
    return hold(host, "rules", seconds=30, doing="port rules are being set")


def ports(host: Host) -> AbstractContextManager[None]:
    """The assignment of forwarded ports."""
    return hold(host, "ports", seconds=30, doing="ports are being assigned")


def templates(host: Host) -> AbstractContextManager[None]:
    """The unpacked templates."""
    return hold(host, "templates", seconds=900, doing="the template is being unpacked")


def mounts(host: Host, name: str) -> AbstractContextManager[None]:
    """One person's mounts. Held briefly, also by a push while another process holds the person's own lock."""
    return hold(host, f"mounts-{name}", seconds=30, doing="files are being attached")


@contextmanager
def hold(host: Host, lock: str, *, seconds: float, doing: str) -> Iterator[None]:
    """Holds a lock; Busy if another process holds it for longer than `seconds`."""
    folder = host.paths.state / "locks"
    folder.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(folder / lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _take(fd, time.monotonic() + seconds, lock, doing)
        yield
    finally:
        os.close(fd)


def _take(fd: int, deadline: float, lock: str, doing: str) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                text = f"another command is running ({doing}); try again in a minute"
                raise Busy(text, reason="lock_held", lock=lock, doing=doing) from None
            time.sleep(0.05)
