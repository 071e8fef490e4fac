"""django-q's ORM broker, which here need not be asked all the time: an order rouses the worker of this machine.

The rows are the queue, as ever. The rousing is one empty datagram to a socket in DATA_DIR, which may be lost: then, and
when the order came from another machine, the worker finds it at its next look.
"""

import contextlib
import os
import select
import socket
from pathlib import Path
from typing import Any

from django.conf import settings
from django_q.brokers.orm import ORM

LOOK_SECONDS = 0.2


def _path() -> Path:
    return Path(settings.DATA_DIR) / "worker.wake"


class Broker(ORM):
    """`dequeue` is called by one process of the worker alone; it needs `poll` to be 0."""

    _ear: socket.socket | None = None

    def enqueue(self, task: str) -> Any:
        key = super().enqueue(task)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mouth:
            mouth.setblocking(False)
            mouth.sendto(b"", os.fspath(_path()))
        return key

    def dequeue(self) -> Any:
        found = super().dequeue()
        if not found:
            self._wait()
        return found

    def _wait(self) -> None:
        """Until something is ordered on this machine, or it is time for a look."""
        with contextlib.suppress(OSError):  # a full disk, say, or a path that is too long for a socket
            self._ear = self._ear or _listen()
        ears = [] if self._ear is None else [self._ear]
        for ear in select.select(ears, [], [], LOOK_SECONDS)[0]:
            with contextlib.suppress(BlockingIOError):
                while True:  # a burst is one
                    ear.recv(1)


def _listen() -> socket.socket:
    """The newest worker listens; an older one of this machine, if there is one, goes on looking."""
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        ear.setblocking(False)
        _path().unlink(missing_ok=True)
        ear.bind(os.fspath(_path()))
    except BaseException:
        ear.close()
        raise
    return ear
