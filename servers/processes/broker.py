"""django-q's ORM broker, with a wake-up: queued work wakes the worker of this machine immediately.

The rows are the queue. The wake-up is one empty datagram to a socket in DATA_DIR. It may be lost: then, and for work
that another machine queued, the worker finds the row at its next poll.
"""

import contextlib
import os
import select
import socket
from pathlib import Path
from typing import Any

from django.conf import settings
from django_q.brokers.orm import ORM

POLL_SECONDS = 0.2


def _path() -> Path:
    return Path(settings.DATA_DIR) / "worker.wake"


class Broker(ORM):
    """`dequeue` is called by a single process of the worker; it needs django-q's `poll` to be 0."""

    _listener: socket.socket | None = None

    def enqueue(self, task: str) -> Any:
        key = super().enqueue(task)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(b"", os.fspath(_path()))
        return key

    def dequeue(self) -> Any:
        found = super().dequeue()
        if not found:
            self._wait()
        return found

    def _wait(self) -> None:
        """Until something is queued on this machine, at most POLL_SECONDS."""
        with contextlib.suppress(OSError):  # for example a full disk, or a path that is too long for a socket
            self._listener = self._listener or _listen()
        listeners = [] if self._listener is None else [self._listener]
        for listener in select.select(listeners, [], [], POLL_SECONDS)[0]:
            with contextlib.suppress(BlockingIOError):
                while True:  # several wake-ups count as one
                    listener.recv(1)


def _listen() -> socket.socket:
    """The newest worker of this machine listens; an older one falls back to polling."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        listener.setblocking(False)
        _path().unlink(missing_ok=True)
        listener.bind(os.fspath(_path()))
    except BaseException:
        listener.close()
        raise
    return listener
