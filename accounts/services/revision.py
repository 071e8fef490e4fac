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
    """Lock the row until the end of the transaction (SQLite locks everything then); return the revision."""
    row = Revision.objects.select_for_update().filter(pk=1).first()
    return row.number if row is not None else Revision.objects.select_for_update().get_or_create(pk=1)[0].number


def increment(people: Iterable[User], *, confirmed: bool = False) -> int:
    """Raise the revision by one and return it, after the change of the keys of `people` and in its transaction.

    `confirmed`: a person has confirmed the removal of these keys, so that no push waits for another confirmation.
    """
    number = lock() + 1
    Revision.objects.filter(pk=1).update(number=F("number") + 1)
    changed, now = [user.pk for user in people], timezone.now()
    User.objects.filter(pk__in=changed).update(keys_revision=number)
    wanted = SSHKey.objects.wanted().filter(user__in=changed)
    current = KeyRange.objects.open().filter(key__user__in=changed)
    current.exclude(key__in=wanted).update(until=number, ended_at=now, confirmed=confirmed)
    new = wanted.exclude(pk__in=current.values("key"))
    KeyRange.objects.bulk_create(KeyRange(key=key, start=number, started_at=now) for key in new)
    _notify(number)
    return number


def _notify(number: int) -> None:
    transaction.on_commit(lambda: keys_changed.send_robust(sender=Revision, revision=number))


def raise_to(number: int) -> int:
    """Raise the revision to at least `number`, in the caller's transaction; return it."""
    if lock() < number:
        Revision.objects.filter(pk=1).update(number=number)
        _notify(number)
    return current()
