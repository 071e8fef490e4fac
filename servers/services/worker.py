"""The worker's sign of life."""

from datetime import timedelta

from django.utils import timezone

from servers.models import Worker

SILENT_AFTER = timedelta(minutes=3)  # it says something each minute, or between two long tasks


def alive(*, unless_within: timedelta = timedelta(0)) -> None:
    now = timezone.now()
    if not Worker.objects.filter(pk=1, seen_at__gt=now - unless_within).exists():
        Worker.objects.update_or_create(pk=1, defaults={"seen_at": now})


def silence() -> timedelta | None:
    """How long ago the worker was seen; None if never."""
    seen = Worker.objects.filter(pk=1).values_list("seen_at", flat=True).first()
    return None if seen is None else timezone.now() - seen


def is_silent() -> bool:
    """Whether the worker was seen once, and is not any more."""
    gone = silence()
    return gone is not None and gone > SILENT_AFTER
