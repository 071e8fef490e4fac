"""The worker's sign of life."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import DatabaseError, connections
from django.utils import timezone

from servers.models import Worker

log = logging.getLogger(__name__)

SILENT_AFTER = timedelta(minutes=3)  # it is asked for a sign of life every few seconds, and gives one while it works
BEAT_SECONDS = 2.0


def beat(*, unless_within: timedelta = timedelta(0)) -> None:
    now = timezone.now()
    if not Worker.objects.filter(pk=1, seen_at__gt=now - unless_within).exists():
        Worker.objects.update_or_create(pk=1, defaults={"seen_at": now})


@contextlib.contextmanager
def beating() -> Iterator[None]:
    """Signs of life during a task: one that takes long is no silence. A short one is not delayed by a write."""
    is_done = threading.Event()
    thread = threading.Thread(target=_beat, args=(is_done,), name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


def _beat(is_done: threading.Event) -> None:
    while not is_done.wait(BEAT_SECONDS):
        try:
            beat()
        except DatabaseError as error:
            log.warning("No sign of life could be written: %s", error)
        finally:
            connections.close_all()


def last_seen() -> datetime | None:
    return Worker.objects.filter(pk=1).values_list("seen_at", flat=True).first()


def silence() -> timedelta | None:
    """How long ago the worker was seen; None if never."""
    seen = last_seen()
    return None if seen is None else timezone.now() - seen


def is_silent() -> bool:
    """Whether the worker was seen once, and is not any more."""
    gone = silence()
    return gone is not None and gone > SILENT_AFTER
