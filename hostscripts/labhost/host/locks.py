"""Locks between labhost's own processes; a killed process leaves none behind."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from labhost.errors import Busy
from labhost.host.config import Host

ACCOUNTS = "accounts"
KEYS = "keys"
PORTS = "ports"
RULES = "rules"
TEMPLATES = "templates"


def user_lock(name: str) -> str:
    return f"user-{name}"


def mount_lock(name: str) -> str:
    """Short: taken also while the person's own lock is held by another process, e.g. by a push of keys."""
    return f"mounts-{name}"


@contextmanager
def hold(host: Host, name: str, *, seconds: float, doing: str) -> Iterator[None]:
    """Holds the lock `name`; Busy when another process keeps it for longer than `seconds`."""
    folder = host.paths.state / "locks"
    folder.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _take(fd, time.monotonic() + seconds, doing)
        yield
    finally:
        os.close(fd)


def _take(fd: int, deadline: float, doing: str) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Busy(f"another command is at work ({doing}); try again in a minute") from None
            time.sleep(0.05)
