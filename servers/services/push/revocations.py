"""Honour keys that staff revoked by hand on a server: remove them everywhere, or ask staff if there are too many.

A server that was taken over could report anybody's keys. It can only make the portal take keys away: those of a few
people an hour, each recorded in the audit log; more wait for staff.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.utils import timezone

from accounts.models import SSHKey
from accounts.services import audit, keys
from servers.models import HandRevocation, Push, Server
from servers.protocol import Answer
from servers.revoked_keys import RevokedKey
from servers.services.worker import queue

State = HandRevocation.State
MAX_PEOPLE = 3  # whose keys one server removes in WITHIN without staff
WITHIN = timedelta(hours=1)
MAX_ACKNOWLEDGED = 1000  # in one request


def acknowledged() -> list[str]:
    """Fingerprints that servers still report although they are dealt with: a push tells them.

    To be read before the keys of that push: a key that was removed for its fingerprint is then not in it.
    """
    dealt = HandRevocation.objects.filter(is_listed=True).exclude(state=State.WAITING)
    return sorted(set(dealt.values_list("key__fingerprint", flat=True)[:MAX_ACKNOWLEDGED]))


@transaction.atomic
def record(server: Server, answer: Answer) -> None:
    """Record what the server reports as revoked by hand, and remove the keys that may be removed without staff."""
    listed = HandRevocation.objects.filter(server=server, is_listed=True)
    if answer.revoked is None or (not answer.revoked and not listed.exists()):
        return
    reported = {one.fingerprint: one for one in answer.revoked}
    gone = listed.exclude(key__fingerprint__in=reported)
    gone.filter(state=State.WAITING).delete()  # undone on the server
    gone.update(is_listed=False)
    known = set(listed.values_list("key__fingerprint", flat=True))
    for fingerprint in reported.keys() - known:
        _add(server, reported[fingerprint])
    _remove_some(server)


def _add(server: Server, one: RevokedKey) -> None:
    """A row, if the key is one of this person's; the portal removed it already if it is not active."""
    own = SSHKey.objects.filter(fingerprint=one.fingerprint, user__username=one.name)
    key = own.active().first() or own.order_by("-revoked_at").first()
    if key is None:
        return
    row = HandRevocation(server=server, key=key, revoked_at=_moment(one.at))
    if not key.is_active:
        row.state, row.decided_by, row.decided_at = State.REMOVED, server.name, timezone.now()
    row.save()
    detail = {"server": server.name, "fingerprint": key.fingerprint, "state": row.state}
    audit.record(actor=server.name, verb="key.revoked_on_server", object=one.name, detail=detail)


def _remove_some(server: Server) -> None:
    now = timezone.now()
    mine = HandRevocation.objects.filter(server=server)
    recent = mine.filter(state=State.REMOVED, decided_by=server.name, decided_at__gt=now - WITHIN)
    people = set(recent.values_list("key__user", flat=True))
    for row in mine.filter(state=State.WAITING, is_listed=True).select_related("key").order_by("pk"):
        people_after = people | {row.key.user_id}
        if len(people_after) <= MAX_PEOPLE:
            people = people_after
            _remove(server.name, row)


def _remove(actor: str, row: HandRevocation) -> None:
    keys.revoke_keys(actor=actor, keys=[row.key])
    # The key is gone everywhere, so what other servers report of it is dealt with as well.
    same = HandRevocation.objects.filter(key=row.key, state=State.WAITING)
    same.update(state=State.REMOVED, decided_by=actor[:64], decided_at=timezone.now())


@transaction.atomic
def remove(*, actor: str, rows: Iterable[HandRevocation]) -> int:
    """Staff confirm these revocations: the keys go from every server. Returns how many were waiting."""
    waiting = _waiting(rows)
    for row in waiting:
        _remove(actor, row)
    return len(waiting)


@transaction.atomic
def keep(*, actor: str, rows: Iterable[HandRevocation]) -> int:
    """Staff reject these revocations: the next push gives the keys back. Returns how many were waiting."""
    waiting = _waiting(rows)
    for row in waiting:
        same = HandRevocation.objects.filter(key=row.key_id, state=State.WAITING)
        same.update(state=State.KEPT, decided_by=actor[:64], decided_at=timezone.now())
        detail = {"server": row.server.name, "fingerprint": row.key.fingerprint}
        audit.record(actor=actor, verb="key.kept", object=row.key.user.username, detail=detail)
        Push.objects.get_or_create(server=row.server, state=Push.State.QUEUED, defaults={"trigger": actor[:64]})
    queue.enqueue(queue.PUSH)
    return len(waiting)


def _waiting(rows: Iterable[HandRevocation]) -> list[HandRevocation]:
    wanted = [row.pk for row in rows]
    found = HandRevocation.objects.select_for_update(of=("self",)).filter(pk__in=wanted, state=State.WAITING)
    return list(found.select_related("server", "key__user"))


def _moment(seconds: int) -> datetime:
    """The server's own claim; the checked answer bounds it."""
    return datetime.fromtimestamp(seconds, UTC)


def waiting_on(server: Server) -> int:
    return HandRevocation.objects.filter(server=server, state=State.WAITING).count()
