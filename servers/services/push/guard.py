"""No push takes many keys away before a person has looked at it."""

import hashlib
import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts.models import SSHKey
from accounts.services import audit
from servers.models import HeldBackPush, KeySnapshot, Server
from servers.protocol import Plain
from servers.services.worker import queue
from servers.ssh.dial import RemoteError

State = HeldBackPush.State
People = Mapping[str, Sequence[str]]  # name to short digests of her keys
KEPT_SETS = 5
SHORT = 16  # hexadecimal digits: enough to tell the keys of one person apart


class HeldBack(RemoteError):
    """The push waits for a person's confirmation; nothing was sent."""

    def __init__(self, row: HeldBackPush) -> None:
        super().__init__("held_back", permanent=True, keys=row.keys, of=row.of_keys, people=row.people)


def may_remove_many(names: Collection[str] | None) -> bool:
    """Whether a push that changes the keys of these people (None: of everybody) could remove many."""
    return names is None or len(names) >= settings.PUSH_MIN_PEOPLE


def save_snapshot(revision: int, digest: str, users: Plain) -> None:
    """Keep what this digest stands for. To be told before a push that is of concern."""
    if not KeySnapshot.objects.filter(digest=digest).exists():
        people = {name: [short(key["type"], key["blob"]) for key in own] for name, own in users.items() if own}
        packed = zlib.compress(json.dumps(people, separators=(",", ":")).encode(), 1)
        KeySnapshot.objects.get_or_create(digest=digest, defaults={"revision": revision, "people": packed})


def check(server: Server, revision: int, digest: str, names: Collection[str] | None = None) -> None:
    """Whether the keys of `digest`, which change those of `names`, may replace what the server holds.

    Raises HeldBack, before anything is sent.
    """
    held, gone = _loss(server, digest) if may_remove_many(names) else ({}, {})
    if not _is_many(held, gone):
        supersede([server])
    elif not _is_confirmed(server, gone):
        raise HeldBack(_hold(server, revision, held, gone))


def supersede(servers: Collection[Server]) -> None:
    """What goes to these servers now removes little: nothing is held back there any more."""
    _settle(servers, State.SUPERSEDED)


def mark_applied(servers: Collection[Server]) -> None:
    """Pushes have been applied: what was confirmed is done."""
    _settle(servers, State.APPLIED)


def prune() -> None:
    """Drop the sets that no server holds, but for the newest, which may be on their way."""
    used = Server.objects.exclude(applied_digest="").values("applied_digest")
    newest = KeySnapshot.objects.order_by("-revision").values_list("digest", flat=True)[:KEPT_SETS]
    KeySnapshot.objects.exclude(digest__in=used).exclude(digest__in=list(newest)).delete()


@transaction.atomic
def confirm(*, actor: str, removal: HeldBackPush, mark: str) -> bool:
    """Let this push go out now; False if it waits no more, or would now remove something else than `mark`."""
    now = timezone.now()
    row = HeldBackPush.objects.select_for_update().filter(pk=removal.pk, state=State.WAITING).first()
    if row is None or row.mark != mark:
        return False
    row.state, row.decided_by, row.decided_at = State.CONFIRMED, actor[:64], now
    row.save(update_fields=["state", "decided_by", "decided_at"])
    Server.objects.filter(pk=row.server_id).update(next_attempt=now)
    detail = {"revision": row.revision, "keys": row.keys, "of": row.of_keys, "people": sorted(row.gone)[:100]}
    audit.record(actor=actor, verb="removal.confirmed", object=row.server.name, detail=detail)
    queue.enqueue(queue.PUSH)
    return True


def _settle(servers: Collection[Server], confirmed: State) -> None:
    """Nothing is held back there any more; `confirmed` is what becomes of a row that somebody has agreed to."""
    mine = HeldBackPush.objects.filter(server__in=servers)
    if mine.filter(state__in=[State.WAITING, State.CONFIRMED]).exists():
        mine.filter(state=State.WAITING).update(state=State.SUPERSEDED)
        mine.filter(state=State.CONFIRMED).update(state=confirmed)


def _is_many(held: People, gone: People) -> bool:
    total, going = _count(held), _count(gone)
    return len(gone) >= settings.PUSH_MIN_PEOPLE and going * 100 > total * settings.PUSH_MAX_REMOVAL_PERCENT


def _is_confirmed(server: Server, gone: People) -> bool:
    """Somebody has agreed to the loss of all of these keys, from the very state that the server holds."""
    agreed = HeldBackPush.objects.filter(server=server, state=State.CONFIRMED, base_digest=server.applied_digest)
    return any(not _missing(gone, row.gone) for row in agreed)


@transaction.atomic
def _hold(server: Server, revision: int, held: People, gone: People) -> HeldBackPush:
    """The one row that waits for this server, brought up to date."""
    row, is_new = HeldBackPush.objects.update_or_create(
        server=server,
        state=State.WAITING,
        defaults={
            "base_digest": server.applied_digest,
            "base_revision": server.applied_revision,
            "revision": revision,
            "gone": gone,
            "people": len(gone),
            "keys": _count(gone),
            "of_keys": _count(held),
        },
    )
    if is_new:
        detail = {"revision": revision, "keys": row.keys, "of": row.of_keys, "people": row.people}
        audit.record(actor="worker", verb="removal.held_back", object=server.name, detail=detail)
    return row


def _missing(held: People, wanted: People) -> dict[str, list[str]]:
    """What is in `held` and not in `wanted`; people who lose nothing are left out."""
    gone = {}
    for name, own in held.items():
        if own != (kept := wanted.get(name, [])) and (lost := sorted(set(own) - set(kept))):
            gone[name] = lost
    return gone


def _count(people: People) -> int:
    return sum(len(own) for own in people.values())


def short(key_type: str, blob: str) -> str:
    return hashlib.sha256(f"{key_type} {blob}".encode()).hexdigest()[:SHORT]


def _loss(server: Server, digest: str) -> tuple[People, People]:
    """What the server holds, and what of it would go."""
    if not server.applied_digest or digest == server.applied_digest:
        return {}, {}  # of a server without a digest nothing is known; what is newer there it defends itself
    try:
        wanted = _load(digest)
    except KeySnapshot.DoesNotExist:
        raise RemoteError("superseded") from None
    try:
        return _difference(server.applied_digest, digest)
    except KeySnapshot.DoesNotExist:
        held = _history(server.applied_revision)
        return held, _missing(held, wanted)


@lru_cache(maxsize=4)
def _difference(before: str, after: str) -> tuple[People, People]:
    """Most servers of a pass hold the same keys; a digest stands for the same keys for ever."""
    held = _load(before)
    return held, _missing(held, _load(after))


@lru_cache(maxsize=4)
def _load(digest: str) -> People:
    """The keys of this digest. Raises KeySet.DoesNotExist."""
    packed = KeySnapshot.objects.values_list("people", flat=True).get(digest=digest)
    people: People = json.loads(zlib.decompress(bytes(packed)))
    return people


def _history(revision: int) -> People:
    """What the portal's own rows say of a revision."""
    then = Q(revoked_revision__isnull=True) | Q(revoked_revision__gt=revision)
    people: dict[str, list[str]] = {}
    for key in SSHKey.objects.filter(then, added_revision__lte=revision).select_related("user"):
        people.setdefault(key.user.username, []).append(short(key.key_type, key.blob))
    return people
