"""The revision row. Whoever holds its lock is the only one who changes keys or issues numbers."""

from collections.abc import Iterable

from django.db import transaction
from django.db.models import F

from accounts.models import Revision, User
from accounts.signals import keys_changed


def current() -> int:
    """The revision now; 0 before the first key."""
    return Revision.objects.filter(pk=1).values_list("number", flat=True).first() or 0


def lock() -> int:
    """Wait for the row and hold it until the end of the transaction; gives the revision.

    On SQLite the transaction is IMMEDIATE, so the whole database is already ours here.
    """
    row = Revision.objects.select_for_update().filter(pk=1).first()
    if row is None:  # the first change of all
        Revision.objects.get_or_create(pk=1)
        row = Revision.objects.select_for_update().get(pk=1)
    return row.number


def increment(people: Iterable[User]) -> int:
    """One higher, in the transaction of the change itself; tells the listeners after its commit.

    `people` are all those of whom the servers are to hold something else now.
    """
    number = lock() + 1
    Revision.objects.filter(pk=1).update(number=F("number") + 1)
    User.objects.filter(pk__in=[user.pk for user in people]).update(keys_revision=number)
    transaction.on_commit(lambda: _tell(number))
    return number


def _tell(number: int) -> None:
    keys_changed.send_robust(sender=Revision, revision=number)


def raise_to(number: int) -> int:
    """At least `number`, in a transaction of the caller's; gives the revision. Tells the listeners as rise does."""
    if lock() < number:
        Revision.objects.filter(pk=1).update(number=number)
        transaction.on_commit(lambda: _tell(number))
    return current()
