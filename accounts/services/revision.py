"""The revision of the keys, and from which to which revision servers should hold each key.

Keys change and numbers are issued only under the lock of the revision's row.
"""

from collections.abc import Iterable

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from accounts.models import KeyRange, Revision, SSHKey, User
from accounts.signals import keys_changed


def current() -> int:
    """The revision now; 0 before the first change."""
    return Revision.objects.filter(pk=1).values_list("number", flat=True).first() or 0


def lock() -> int:
    """Lock the row until the end of the transaction; return the revision.

    On SQLite the transaction is IMMEDIATE, so the whole database is locked already.
    """
    row = Revision.objects.select_for_update().filter(pk=1).first()
    if row is None:  # the first change of all
        Revision.objects.get_or_create(pk=1)
        row = Revision.objects.select_for_update().get(pk=1)
    return row.number


def increment(people: Iterable[User]) -> int:
    """Raise the revision by one and return it; call it after the change, in its transaction.

    `people` are all those whose keys servers should hold differently now. Their key ranges are brought up to
    date. Listeners are notified after the commit.
    """
    number = lock() + 1
    Revision.objects.filter(pk=1).update(number=F("number") + 1)
    changed = [user.pk for user in people]
    User.objects.filter(pk__in=changed).update(keys_revision=number)
    _update_ranges(changed, number)
    transaction.on_commit(lambda: _notify(number))
    return number


def _update_ranges(people: list[int], number: int) -> None:
    now, wanted = timezone.now(), SSHKey.objects.wanted().filter(user__in=people)
    current = KeyRange.objects.open().filter(key__user__in=people)
    current.exclude(key__in=wanted).update(until=number, ended_at=now)
    new = wanted.exclude(pk__in=current.values("key"))
    KeyRange.objects.bulk_create(KeyRange(key=key, start=number, started_at=now) for key in new)


def _notify(number: int) -> None:
    keys_changed.send_robust(sender=Revision, revision=number)


def raise_to(number: int) -> int:
    """Raise the revision to at least `number`, in the caller's transaction; return it."""
    if lock() < number:
        Revision.objects.filter(pk=1).update(number=number)
        transaction.on_commit(lambda: _notify(number))
    return current()
