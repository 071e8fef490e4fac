"""The worker's heartbeat: when it last worked, as a row."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import DatabaseError, connections
from django.utils import timezone

from servers.models import Worker

log = logging.getLogger(__name__)

SILENT_AFTER = timedelta(minutes=3)  # a heartbeat comes every few seconds, also during a task
BEAT_SECONDS = 2.0


def beat(*, unless_within: timedelta = timedelta(0)) -> None:
    now = timezone.now()
    if not Worker.objects.filter(pk=1, seen_at__gt=now - unless_within).exists():
        Worker.objects.update_or_create(pk=1, defaults={"seen_at": now})


@contextlib.contextmanager
def beating() -> Iterator[None]:
    """Keep the heartbeat going during a long task. A short task does not wait for a write."""
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
            log.warning("The heartbeat could not be written: %s", error)
        finally:
            connections.close_all()


def last_seen() -> datetime | None:
    return Worker.objects.filter(pk=1).values_list("seen_at", flat=True).first()


def silence() -> timedelta | None:
    """Time since the last heartbeat; None if there never was one."""
    last = last_seen()
    return None if last is None else timezone.now() - last


def is_silent() -> bool:
    """Whether there was a heartbeat once, but none for SILENT_AFTER."""
    age = silence()
    return age is not None and age > SILENT_AFTER
