"""The revision of the keys, and from which to which revision servers should hold each key.

Keys change and numbers are issued only under the lock of the revision's row.
"""

import secrets
from collections.abc import Collection, Iterable

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from accounts.models import KeyRange, Revision, RevisionId, SSHKey, User
from accounts.signals import keys_changed

MAX_IDS = 10_000  # of the latest revisions


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
    RevisionId.objects.create(number=number, value=secrets.token_hex(16))
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


def id_of(number: int) -> str:
    """The random id of this revision; "" if it has none in this database."""
    return RevisionId.objects.filter(number=number).values_list("value", flat=True).first() or ""


def knows(number: int, value: str) -> bool:
    """Whether this is a revision of this database; without an id, by the number alone."""
    return id_of(number) == value if value else number <= current()


def prune_ids(keep: Collection[int]) -> None:
    """Delete the ids of old revisions, except of those that servers still hold."""
    RevisionId.objects.filter(number__lt=current() - MAX_IDS).exclude(number__in=keep).delete()
