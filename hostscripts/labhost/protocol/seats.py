"""Bounds how many processes wait for the portal's requests: the newest wins, the one that waits longest is ended.

A process holds one byte of a file by a POSIX lock, see fcntl_locking(2): it ends with the process, and the kernel names
its holder.
"""

import fcntl
import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from labhost.errors import Busy

FILE = Path("/run/lab-iam-seats")
SESSIONS = range(8)  # of set-keys: one for each process of the portal's worker, and some to spare
REQUESTS = range(8, 24)  # of the other verbs, until their request has arrived
SECONDS = 20.0
STEP = 0.1  # how long one process has to end before the next one is asked to
_FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux: type, whence, start, length, pid


@contextmanager
def hold(seats: range, *, seconds: float = SECONDS) -> Iterator[None]:
    """Holds one of these seats; Busy if their holders do not end. Without room for the file nothing is bounded."""
    try:
        fd = os.open(FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        yield
        return
    try:
        _take(fd, seats, time.monotonic() + seconds)
        yield
    finally:
        os.close(fd)


def _take(fd: int, seats: range, deadline: float) -> None:
    asked: set[int] = set()
    while not any(_lock(fd, seat) for seat in seats):
        if time.monotonic() >= deadline:
            text = "too many requests of the portal are being worked on; try again in a minute"
            raise Busy(text, reason="too_many_requests", most=len(seats))
        waiting = [(_started(pid), pid, seat) for seat in seats if (pid := _holder(fd, seat)) and pid not in asked]
        for _, pid, seat in sorted(waiting)[:1]:
            asked.add(pid)
            _end(fd, pid, seat)
        time.sleep(STEP)


def _lock(fd: int, seat: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, seat)
    except OSError:
        return False
    return True


def _holder(fd: int, seat: int) -> int:
    """The process that holds the seat; 0 if none does."""
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, seat, 1, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, wanted))
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def _started(pid: int) -> int:
    """When the process started, in clock ticks since the boot, see proc_pid_stat(5)."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return 0


def _end(fd: int, pid: int, seat: int) -> None:
    with suppress(OSError):  # it has ended already
        process = os.pidfd_open(pid)
        try:
            if _holder(fd, seat) == pid:  # so the number was not reused before it was opened
                signal.pidfd_send_signal(process, signal.SIGTERM)
        finally:
            os.close(process)
