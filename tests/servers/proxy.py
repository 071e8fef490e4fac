"""A bad network between the portal and a server: a TCP proxy that delays, loses, cuts and throttles.

It forwards real packets between real sockets, and decides what happens to them on the way.
"""

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, replace
from typing import Self

CHUNK = 16 * 1024


@dataclass(frozen=True)
class Faults:
    """`..._after` count the bytes of one connection, in both directions, since these faults were set."""

    delay: float = 0.0  # seconds on the way, each way
    bytes_per_second: float = 0.0  # 0: no limit
    cut_after: int | None = None  # then it is closed normally, in the middle of anything
    reset_after: int | None = None  # then it is closed with a RST
    lost_after: int | None = None  # then nothing arrives any more, without an error
    refuses: bool = False  # accepts and closes at once


class Proxy:
    """As a context manager: listens on `address` and forwards to `target`."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.address: tuple[str, int] = self._listener.getsockname()
        self.faults = Faults()
        self.connections = 0
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_all()

    def set_faults(self, **changes: object) -> None:
        """Change the faults, also for open connections."""
        self.faults = replace(Faults(), **changes)  # type: ignore[arg-type]

    def drop_all(self, *, reset: bool = False) -> None:
        """End every open connection now."""
        with self._lock:
            lines, self._open = self._open, []
        for line in lines:
            _end(line, reset=reset)

    def _accept(self) -> None:
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            if self.faults.refuses:
                _end(near, reset=True)
                continue
            try:
                far = socket.create_connection(self._target, timeout=5)
            except OSError:
                _end(near, reset=True)
                continue
            far.settimeout(None)
            with self._lock:
                self._open += [near, far]
            passed = _Passed(self.faults)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other, passed), name="proxy", daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, passed: "_Passed") -> None:
        try:
            while data := one.recv(CHUNK):
                faults = self.faults
                if faults.delay:
                    time.sleep(faults.delay)
                if faults.bytes_per_second:
                    time.sleep(len(data) / faults.bytes_per_second)
                through = passed.through(faults, len(data))
                other.sendall(data[:through])
                if through < len(data) and faults.lost_after is None:
                    break  # data that is to be lost is read and dropped, without an error
            else:
                other.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        for line in (one, other):
            _end(line, reset=self.faults.reset_after is not None)


class _Passed:
    """The bytes of one connection since the faults were changed."""

    def __init__(self, faults: Faults) -> None:
        self._faults, self._bytes, self._lock = faults, 0, threading.Lock()

    def through(self, faults: Faults, count: int) -> int:
        """How many of the next `count` bytes are still forwarded."""
        with self._lock:
            if faults is not self._faults:
                self._faults, self._bytes = faults, 0
            before, self._bytes = self._bytes, self._bytes + count
        limits = [faults.cut_after, faults.reset_after, faults.lost_after]
        return max(0, min([count, *(limit - before for limit in limits if limit is not None)]))


def _end(line: socket.socket, *, reset: bool = False) -> None:
    with contextlib.suppress(OSError):
        if reset:  # SO_LINGER of 0 seconds: close(2) sends a RST. socket(7)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            line.shutdown(socket.SHUT_RDWR)
    line.close()
