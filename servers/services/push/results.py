"""What a push came to, or a server said of itself, written down on its rows."""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from accounts.services import audit, keys
from servers.models import Push, Server
from servers.protocol import Answer
from servers.services.push import guard
from servers.services.status import placements
from servers.services.worker import queue
from servers.ssh.dial import RemoteError

log = logging.getLogger(__name__)

BACKOFF_FIRST, BACKOFF_MOST = 2.0, 300.0
KEPT_SYNCS = 50  # of each server
STALE = (
    "it holds a newer revision of the keys than the portal, as after restoring an older backup; "
    "nothing was changed there: see manage.py raise_revision --help"
)


@dataclass(frozen=True)
class Claim:
    """One server that is ours until `lease`; `attempts` counts this one too. `is_ordered`: by a person."""

    server: Server
    push: Push
    lease: datetime
    attempts: int
    is_ordered: bool = False


@dataclass(frozen=True)
class Outcome:
    """`answer` is None if nothing was applied; `offered` is a host key that was refused.

    `whole`: the answer tells of everybody. Otherwise only of the people that the push named. `stale`: the
    server holds something newer than what the portal has.
    """

    state: Push.State
    revision: int
    digest: str = ""
    error: str = ""
    answer: Answer | None = None
    permanent: bool = False
    offered: str = ""
    whole: bool = True
    stale: bool = False


def evaluate(server: Server, revision: int, digest: str, answer: Answer, *, whole: bool = True) -> Outcome:
    """What the answer to a push of this revision and digest means."""
    if answer.code == "stale_revision":
        return Outcome(Push.State.FAILED, revision, error=f"{server.name}: {STALE}.", permanent=True, stale=True)
    if not answer.ok and answer.code != "partial":
        return Outcome(Push.State.FAILED, revision, error=f"{server.name}: {answer.error and answer.error.reason}.")
    if (answer.revision, answer.digest) != (revision, digest):
        return Outcome(Push.State.FAILED, revision, error=f"{server.name}: it answers for another revision.")
    failed = sum(1 for result in answer.users.values() if result.failed)
    if whole:  # who is not told of has nothing there
        answer = answer.of_people_here()
    if failed or not answer.ok:
        who = "one person was" if failed == 1 else f"{failed} people were"
        words = "the keys of 'register' were not written" if answer.register == "failed" else f"{who} not served"
        return Outcome(Push.State.PARTIAL, revision, digest, f"{server.name}: {words}.", answer, whole=whole)
    return Outcome(Push.State.SUCCEEDED, revision, digest, "", answer, whole=whole)


def failure(revision: int, error: RemoteError) -> Outcome:
    return Outcome(Push.State.FAILED, revision, error=error.message, permanent=error.permanent, offered=error.offered)


def backoff(attempts: int, *, permanent: bool = False) -> timedelta:
    """2, 4, 8 ... 300 seconds, each up to a fifth longer or shorter, so that servers do not fall in step."""
    seconds = BACKOFF_MOST if permanent else min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(attempts - 1, 10))
    return timedelta(seconds=min(BACKOFF_MOST, seconds * random.uniform(0.8, 1.2)))  # noqa: S311 - no secret


def record(claim: Claim, outcome: Outcome) -> Push | None:
    """Write it down; None if the claim has run out meanwhile and is somebody else's now."""
    rows = record_all([(claim, outcome)])
    return rows[0] if rows else None


def record_all(results: Sequence[tuple[Claim, Outcome]]) -> list[Push]:
    """The same for several: first, in one transaction, what each server has now; then what else it told.

    Gives the rows of those that are still ours.
    """
    now = timezone.now()
    with transaction.atomic():
        held = {server.pk: server for server in _still_ours(results)}
        ours = [(claim, outcome) for claim, outcome in results if claim.server.pk in held]
        # A person who was not served is noted before the server counts as up to date: never live for a moment.
        _note_answers([pair for pair in ours if pair[1].state != Push.State.SUCCEEDED], now)
        _update_servers(ours, held, now)
        _finish_syncs(ours, now)
        applied = [(claim.server, outcome.answer) for claim, outcome in ours if outcome.answer is not None]
        placements.record_confirmations(applied, now=now)
        guard.mark_applied([server for server, _ in applied])
    for pair in ours:
        if pair[1].state == Push.State.SUCCEEDED:
            try:
                _note_answers([pair], now)
            except Exception:  # what it has is written down; the next push tells the rest again
                log.exception("What %s told of its people could not be written down.", pair[0].server.name)
    return [claim.push for claim, _ in ours]


def _note_answers(results: Sequence[tuple[Claim, Outcome]], now: datetime) -> None:
    for claim, outcome in results:
        if outcome.answer is not None:
            _note_answer(claim, outcome.answer, whole=outcome.whole, now=now)


def _still_ours(results: Sequence[tuple[Claim, Outcome]]) -> list[Server]:
    leases = {claim.server.pk: claim.lease for claim, _ in results}
    rows = Server.objects.select_for_update().filter(pk__in=leases)
    return [row for row in rows if row.lease_until == leases[row.pk]]


def _update_servers(ours: Sequence[tuple[Claim, Outcome]], held: Mapping[int, Server], now: datetime) -> None:
    """One statement for all servers of which the same is to be written: mostly that all is well."""
    alike: dict[tuple[tuple[str, object], ...], list[int]] = {}
    for claim, outcome in ours:
        server = held[claim.server.pk]
        _refused_key(server, outcome)
        changes = {"lease_until": None, "last_error": outcome.error[:500], **_changes(server, claim, outcome, now)}
        alike.setdefault(tuple(changes.items()), []).append(server.pk)
    for pairs, servers in alike.items():
        Server.objects.filter(pk__in=servers).update(**dict(pairs))


def _finish_syncs(ours: Sequence[tuple[Claim, Outcome]], now: datetime) -> None:
    alike: dict[tuple[tuple[str, object], ...], list[int]] = {}
    for claim, outcome in ours:
        end = {"state": outcome.state, "finished_at": now, "error": outcome.error[:500], "revision": outcome.revision}
        for name, value in end.items():
            setattr(claim.push, name, value)
        alike.setdefault(tuple(end.items()), []).append(claim.push.pk)
    for pairs, pushes in alike.items():
        Push.objects.filter(pk__in=pushes).update(**dict(pairs))


@transaction.atomic
def _note_answer(claim: Claim, answer: Answer, *, whole: bool, now: datetime) -> None:
    _count(claim.push, answer)
    claim.push.save(update_fields=["results", "written", "unchanged"])
    placements.record_answer(claim.server, answer, whole=whole, now=now)


def _changes(server: Server, claim: Claim, outcome: Outcome, now: datetime) -> dict[str, object]:
    changes: dict[str, object] = {}
    if outcome.answer is not None:
        changes |= {
            "applied_revision": outcome.revision,
            "applied_digest": outcome.digest,
            "attempted_revision": outcome.revision,
            "reported_revision": outcome.revision,
            "ahead_since": None,
            "last_contact": now,
            "offered_host_key": "",
        }
        if outcome.whole:
            changes["inspected_at"] = now
    if outcome.stale and outcome.revision >= server.applied_revision:
        changes |= {"ahead_since": server.ahead_since or now, "last_contact": now}
    if outcome.state == Push.State.SUCCEEDED:
        return changes | {"attempts": 0, "next_attempt": None, "behind_since": None}
    if outcome.offered:
        changes["offered_host_key"] = outcome.offered
    return changes | {
        "next_attempt": now + backoff(claim.attempts, permanent=outcome.permanent),
        "behind_since": server.behind_since or now,
    }


def _refused_key(server: Server, outcome: Outcome) -> None:
    """Said once for each key that was shown, not at each try."""
    if outcome.offered and outcome.offered != server.offered_host_key:
        fresh = Server(host_key=server.host_key, offered_host_key=outcome.offered)
        audit.record(
            actor="worker",
            verb="server.host_key_refused",
            object=server.name,
            detail={"pinned": fresh.fingerprint, "offered": fresh.offered_fingerprint},
        )


def _count(push: Push, answer: Answer) -> None:
    """Only people who have something there; everybody's keys for `register` are no person's file."""
    here = answer.of_people_here().users
    push.results = {name: result.as_json() for name, result in sorted(here.items())}
    push.written = sum(1 for result in here.values() if "written" in (result.host, result.container))
    push.unchanged = len(here) - push.written - sum(1 for result in here.values() if result.failed)


@transaction.atomic
def record_status(server: Server, answer: Answer) -> None:
    """What a server said of itself. `server` is its row as it was before the question.

    A container that the portal did not know, or keys that are no longer what the server confirmed, are
    reason enough for a push, which tells the rest.
    """
    now, mine = timezone.now(), Server.objects.filter(pk=server.pk)
    ahead = Coalesce("ahead_since", now) if _is_ahead(server, answer) else None
    mine.update(
        labhost_version=answer.labhost,
        driver_version=answer.driver,
        storage=answer.storage,
        reported_revision=answer.revision,
        last_contact=now,
        inspected_at=now,
        **({"ahead_since": ahead} if ahead or answer.digest == server.applied_digest else {}),
    )
    if server.applied_digest and answer.revision < server.applied_revision:
        lost = mine.filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now))
        lost = lost.filter(applied_revision=server.applied_revision, applied_digest=server.applied_digest)
        held = {"applied_revision": answer.revision, "applied_digest": answer.digest}
        if lost.update(**held, behind_since=now, next_attempt=now):
            placements.forget_confirmations(server, above=answer.revision)
            queue.enqueue(queue.PUSH)
    if placements.record_containers(server, answer.containers, now=now) and server.enabled:
        Push.objects.get_or_create(server=server, state=Push.State.QUEUED, defaults={"trigger": "new container"})
        queue.enqueue(queue.PUSH)


def _is_ahead(server: Server, answer: Answer) -> bool:
    """It holds a revision that the portal has not reached, or knows with other keys: another history."""
    is_other = answer.revision == server.applied_revision and answer.digest not in ("", server.applied_digest)
    return answer.revision > keys.current_revision() or (bool(server.applied_digest) and is_other)


def prune(server: Server) -> None:
    """Forget old pushes beyond the last KEPT_SYNCS."""
    kept = Push.objects.filter(server=server).values_list("pk", flat=True)[:KEPT_SYNCS]
    oldest = min(kept, default=None)
    if oldest is not None and len(kept) == KEPT_SYNCS:
        Push.objects.filter(server=server, pk__lt=oldest, finished_at__isnull=False).delete()
