"""A push that would remove many keys is held back until staff confirm it.

Removals count over minutes, so that many small pushes are no way around it. What a person has confirmed, in the
admin or by removing their own key, does not count.
"""

import hashlib
import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts.models import KeyRange
from accounts.services import audit
from servers.models import HeldBackPush, KeySnapshot, Server, ServerState
from servers.protocol import Plain
from servers.services.worker import queue
from servers.ssh.dial import RemoteError

State = HeldBackPush.State
People = Mapping[str, Sequence[str]]  # name to short digests of the person's keys
MIN_SNAPSHOTS = 5  # that are stored although no server holds them
WINDOW = timedelta(minutes=10)
SHORT = 16  # hexadecimal digits: enough to tell the keys of one person apart


_KEY = ("key__user__username", "key__key_type", "key__blob")


class HeldBack(RemoteError):
    """The push waits for staff to confirm it; nothing was sent."""

    def __init__(self, row: HeldBackPush) -> None:
        super().__init__("held_back", permanent=True, keys=row.keys_count, of=row.keys_total, people=row.people_count)


def recent_losers() -> set[str]:
    """People who lost keys within WINDOW without anybody's confirmation."""
    return {name for name, *_ in _ended(ended_at__gte=timezone.now() - WINDOW, confirmed=False)}


def may_remove_many(names: Collection[str] | None, recent: Collection[str]) -> bool:
    """Whether a push that changes the keys of these people (None: of everybody) and of `recent` could be many."""
    return names is None or len({*names, *recent}) >= settings.PUSH_MIN_PEOPLE


def save_snapshot(revision: int, digest: str, users: Plain) -> None:
    """Store the keys of this digest; to be called before a push that could remove many keys."""
    if not KeySnapshot.objects.filter(digest=digest).exists():
        people = {name: [short(key["type"], key["blob"]) for key in own] for name, own in users.items() if own}
        packed = zlib.compress(json.dumps(people, separators=(",", ":")).encode(), 1)
        KeySnapshot.objects.get_or_create(digest=digest, defaults={"revision": revision, "people": packed})


def check(server: Server, revision: int, digest: str) -> None:
    """Raise HeldBack unless the keys of `digest` may replace what the server holds."""
    check_held(server, revision, *_loss(server, digest))


def check_held(server: Server, revision: int, held: People, lost: People) -> None:
    """Raise HeldBack unless these of the keys that the server holds may be removed."""
    removed = _unconfirmed(server, lost)
    if not removed or not is_large(server, held, removed):
        close([server], State.CONFIRMED if lost else State.SUPERSEDED)
    elif not _is_confirmed(server, removed):
        raise HeldBack(_hold(server, revision, held, removed))


def is_large(server: Server, held: People, removed: People) -> bool:
    """Whether staff must confirm this removal, together with what left the server just before."""
    gone = _gone(server)
    share = (_count(removed) + _count(gone)) * 100
    is_share_large = share > (_count(held) + _count(gone)) * settings.PUSH_MAX_REMOVAL_PERCENT
    return is_share_large and len(removed.keys() | gone.keys()) >= settings.PUSH_MIN_PEOPLE


def close(servers: Collection[Server], confirmed: State = State.SUPERSEDED) -> None:
    """A push to these servers may go or has gone: nothing waits there, and what staff confirmed becomes `confirmed`."""
    mine = HeldBackPush.objects.filter(server__in=servers)
    if mine.filter(state__in=[State.WAITING, State.CONFIRMED]).exists():
        mine.filter(state=State.WAITING).update(state=State.SUPERSEDED)
        mine.filter(state=State.CONFIRMED).update(state=confirmed)


def prune() -> None:
    """Delete snapshots that no server holds, except the newest, which a running push may need."""
    used = ServerState.objects.exclude(applied_digest="").values("applied_digest")
    newest = KeySnapshot.objects.order_by("-revision").values_list("digest", flat=True)[:MIN_SNAPSHOTS]
    KeySnapshot.objects.exclude(digest__in=used).exclude(digest__in=list(newest)).delete()


@transaction.atomic
def confirm(*, actor: str, held_back: HeldBackPush, mark: str) -> bool:
    """Release this push now; False if it no longer waits, or would remove other keys than those of `mark`."""
    now = timezone.now()
    row = HeldBackPush.objects.select_for_update().filter(pk=held_back.pk, state=State.WAITING).first()
    if row is None or row.mark != mark:
        return False
    row.state, row.decided_by, row.decided_at = State.CONFIRMED, actor[:64], now
    row.save(update_fields=["state", "decided_by", "decided_at"])
    _confirm_ranges(row)
    # Elsewhere the same keys may be waiting for the same answer.
    others = HeldBackPush.objects.filter(state=State.WAITING).values("server")
    ServerState.objects.filter(Q(pk=row.server_id) | Q(pk__in=others)).update(next_attempt=now)
    detail = _detail(row) | {"people": sorted(row.removed_keys)[:100]}
    audit.record(actor=actor, verb="push.confirmed", object=row.server.name, detail=detail)
    queue.enqueue(queue.PUSH)
    return True


def _is_confirmed(server: Server, removed: People) -> bool:
    """Whether staff have confirmed the removal of all these keys from exactly what the server holds."""
    mine = HeldBackPush.objects.filter(server=server, state=State.CONFIRMED)
    confirmed = mine.filter(base_digest=server.state.applied_digest)
    return any(not missing(removed, row.removed_keys) for row in confirmed)


def _ended(**conditions: Any) -> Iterable[tuple[str, str, bool]]:
    """Person, short digest and whether somebody confirmed it, of each removal; the last of a key comes last."""
    rows = KeyRange.objects.filter(until__isnull=False, **conditions).order_by("until")
    for name, key_type, blob, confirmed in rows.values_list(*_KEY, "confirmed"):
        yield name, short(key_type, blob), confirmed


def _unconfirmed(server: Server, lost: People) -> People:
    """Those of the keys to remove that nobody has confirmed yet."""
    confirmed: dict[tuple[str, str], bool] = {}
    if lost:
        rows = _ended(until__gt=server.state.applied_revision, key__user__username__in=lost.keys())
        confirmed = {(name, key): done for name, key, done in rows}
    left = {name: [key for key in own if not confirmed.get((name, key))] for name, own in lost.items()}
    return {name: own for name, own in left.items() if own}


def _gone(server: Server) -> People:
    """Keys that left the server within WINDOW without anybody's confirmation."""
    people: dict[str, list[str]] = {}
    since = timezone.now() - WINDOW
    for name, key, _ in _ended(ended_at__gte=since, until__lte=server.state.applied_revision, confirmed=False):
        people.setdefault(name, []).append(key)
    return people


def _confirm_ranges(row: HeldBackPush) -> None:
    """Nobody is asked about these keys again, on whatever server."""
    ended = KeyRange.objects.filter(until__gt=row.base_revision, until__lte=row.revision)
    ended = ended.filter(key__user__username__in=row.removed_keys)
    found = [
        pk
        for pk, name, key_type, blob in ended.values_list("pk", *_KEY)
        if short(key_type, blob) in row.removed_keys[name]
    ]
    KeyRange.objects.filter(pk__in=found).update(confirmed=True)


@transaction.atomic
def _hold(server: Server, revision: int, held: People, removed: People) -> HeldBackPush:
    base = {"base_digest": server.state.applied_digest, "base_revision": server.state.applied_revision}
    counts = {"people_count": len(removed), "keys_count": _count(removed), "keys_total": _count(held)}
    row, is_new = HeldBackPush.objects.update_or_create(
        server=server, state=State.WAITING, defaults={**base, **counts, "revision": revision, "removed_keys": removed}
    )
    if is_new:
        audit.record(actor="worker", verb="push.held_back", object=server.name, detail=_detail(row))
    return row


def _detail(row: HeldBackPush) -> dict[str, Any]:
    return {"revision": row.revision, "keys": row.keys_count, "of": row.keys_total, "people": row.people_count}


def missing(held: People, wanted: People) -> dict[str, list[str]]:
    """The keys in `held` that are not in `wanted`; people who lose none are left out."""
    found = {}
    for name, own in held.items():
        if own != (rest := wanted.get(name, [])) and (lost := sorted(set(own) - set(rest))):
            found[name] = lost
    return found


def _count(people: People) -> int:
    return sum(len(own) for own in people.values())


def short(key_type: str, blob: str) -> str:
    return hashlib.sha256(f"{key_type} {blob}".encode()).hexdigest()[:SHORT]


def _loss(server: Server, digest: str) -> tuple[People, People]:
    """The keys that the server holds, and those of them that would be removed."""
    if not server.state.applied_digest or digest == server.state.applied_digest:
        return {}, {}  # without a digest nothing is known; a host that holds keys says so, see other_state.py
    try:
        wanted = _load(digest)
    except KeySnapshot.DoesNotExist:
        raise RemoteError("superseded") from None
    try:
        return _difference(server.state.applied_digest, digest)
    except KeySnapshot.DoesNotExist:
        held = _history(server.state.applied_revision)
        return held, missing(held, wanted)


@lru_cache(maxsize=4)
def _difference(before: str, after: str) -> tuple[People, People]:
    """Cached: most servers of a pass hold the same keys, and the keys of a digest never change."""
    held = _load(before)
    return held, missing(held, _load(after))


@lru_cache(maxsize=4)
def _load(digest: str) -> People:
    """The keys of this digest. Raises KeySnapshot.DoesNotExist."""
    packed = KeySnapshot.objects.values_list("people", flat=True).get(digest=digest)
    people: People = json.loads(zlib.decompress(bytes(packed)))
    return people


def _history(revision: int) -> People:
    """The keys that servers should have held at this revision."""
    people: dict[str, list[str]] = {}
    rows = KeyRange.objects.wanted_at(revision).values_list(*_KEY)
    for name, key_type, blob in rows:
        people.setdefault(name, []).append(short(key_type, blob))
    return people
