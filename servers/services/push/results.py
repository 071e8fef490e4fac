"""Record the outcome of pushes and the status that servers report."""

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
from servers.models import Push, Server, ServerState
from servers.protocol import Answer, Message
from servers.services.push import guard
from servers.services.status import placements
from servers.services.worker import queue
from servers.ssh.dial import RemoteError

log = logging.getLogger(__name__)

BACKOFF_FIRST, BACKOFF_MOST = 2.0, 300.0
MAX_PUSHES = 50  # of each server


@dataclass(frozen=True)
class Claim:
    """A server claimed until `lease`; `attempts` includes this one. `is_ordered`: a person requested the push.

    `server` and its state are as before the claim.
    """

    server: Server
    push: Push
    lease: datetime
    attempts: int
    is_ordered: bool = False


@dataclass(frozen=True)
class Outcome:
    """`answer` is None if nothing was applied; `offered` is a host key that was refused.

    `whole`: the answer covers everybody, otherwise only the people that the push named. `stale`: the server
    holds a newer revision than the portal. `is_sent`: the keys may have reached the server.
    """

    state: Push.State
    revision: int
    digest: str = ""
    error: Message | None = None
    answer: Answer | None = None
    permanent: bool = False
    offered: str = ""
    whole: bool = True
    stale: bool = False
    is_sent: bool = True


def evaluate(revision: int, digest: str, answer: Answer, *, whole: bool = True) -> Outcome:
    """What the answer to a push of this revision and digest means."""
    if answer.code == "stale_revision":
        return Outcome(Push.State.FAILED, revision, error=Message("server_ahead"), permanent=True, stale=True)
    if not answer.ok and answer.code != "partial":
        return Outcome(Push.State.FAILED, revision, error=answer.error)
    if (answer.revision, answer.digest) != (revision, digest):
        return Outcome(Push.State.FAILED, revision, error=Message("other_revision"))
    failed = sum(1 for result in answer.users.values() if result.failed)
    if whole:  # people who are not mentioned have nothing there
        answer = answer.of_people_here()
    if failed or not answer.ok:
        is_register = answer.register == "failed"
        error = Message("register_failed") if is_register else Message("people_failed", {"count": failed})
        return Outcome(Push.State.PARTIAL, revision, digest, error, answer, whole=whole)
    return Outcome(Push.State.SUCCEEDED, revision, digest, None, answer, whole=whole)


def failure(revision: int, error: RemoteError, *, is_sent: bool) -> Outcome:
    return Outcome(
        Push.State.FAILED,
        revision,
        error=error.message,
        permanent=error.permanent,
        offered=error.offered,
        is_sent=is_sent,
    )


def backoff(attempts: int, *, permanent: bool = False) -> timedelta:
    """2, 4, 8 ... 300 seconds, each up to a fifth longer or shorter, so that retries spread out."""
    seconds = BACKOFF_MOST if permanent else min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(attempts - 1, 10))
    return timedelta(seconds=min(BACKOFF_MOST, seconds * random.uniform(0.8, 1.2)))  # noqa: S311 - no secret


def record(claim: Claim, outcome: Outcome) -> Push | None:
    """Record an outcome; None if the claim has expired meanwhile."""
    rows = record_all([(claim, outcome)])
    return rows[0] if rows else None


def record_all(results: Sequence[tuple[Claim, Outcome]]) -> list[Push]:
    """Record several: first, in one transaction, what each server holds now; then what it reported of people.

    Returns the pushes whose claims had not expired.
    """
    now = timezone.now()
    with transaction.atomic():
        held = {state.pk: state for state in _still_ours(results)}
        ours = [(claim, outcome) for claim, outcome in results if claim.server.pk in held]
        # Failed key files are recorded before the server counts as up to date, so that no key looks live meanwhile.
        _note_answers([pair for pair in ours if pair[1].state != Push.State.SUCCEEDED], now)
        _update_servers(ours, held, now)
        _finish_pushes(ours, now)
        applied = [(claim.server, outcome.answer) for claim, outcome in ours if outcome.answer is not None]
        placements.record_confirmations(applied, now=now)
        guard.mark_applied([server for server, _ in applied])
    for pair in ours:
        if pair[1].state == Push.State.SUCCEEDED:
            try:
                _note_answers([pair], now)
            except Exception:  # what it holds is recorded; the next push reports the rest again
                log.exception("The report of %s about people could not be recorded.", pair[0].server.name)
    return [claim.push for claim, _ in ours]


def _note_answers(results: Sequence[tuple[Claim, Outcome]], now: datetime) -> None:
    for claim, outcome in results:
        if outcome.answer is not None:
            _note_answer(claim, outcome.answer, whole=outcome.whole, now=now)


def _still_ours(results: Sequence[tuple[Claim, Outcome]]) -> list[ServerState]:
    leases = {claim.server.pk: claim.lease for claim, _ in results}
    rows = ServerState.objects.select_related("server").select_for_update(of=("self",)).filter(pk__in=leases)
    return [row for row in rows if row.lease_until == leases[row.pk]]


def _update_servers(ours: Sequence[tuple[Claim, Outcome]], held: Mapping[int, ServerState], now: datetime) -> None:
    """One statement for all servers with the same changes: usually that all is well."""
    alike: dict[tuple[tuple[str, object], ...], list[int]] = {}
    for claim, outcome in ours:
        state = held[claim.server.pk]
        _store_offered_key(state.server, outcome)
        changes = {"lease_until": None, "last_error": outcome.error, **_changes(state, claim, outcome, now)}
        alike.setdefault(tuple(changes.items()), []).append(state.pk)
    for pairs, servers in alike.items():
        ServerState.objects.filter(pk__in=servers).update(**dict(pairs))


def _finish_pushes(ours: Sequence[tuple[Claim, Outcome]], now: datetime) -> None:
    alike: dict[tuple[tuple[str, object], ...], list[int]] = {}
    for claim, outcome in ours:
        end = {"state": outcome.state, "finished_at": now, "error": outcome.error, "revision": outcome.revision}
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


def _changes(state: ServerState, claim: Claim, outcome: Outcome, now: datetime) -> dict[str, object]:
    changes: dict[str, object] = {}
    if outcome.answer is not None:
        changes |= {
            "applied_revision": outcome.revision,
            "applied_digest": outcome.digest,
            "attempted_revision": outcome.revision,
            "reported_revision": outcome.revision,
            "ahead_since": None,
            "last_contact": now,
            "unconfirmed_first": None,
            "unconfirmed_last": None,
        }
        if outcome.whole:
            changes["inspected_at"] = now
    elif not outcome.is_sent:  # as before the claim
        before = claim.server.state
        changes |= {"unconfirmed_first": before.unconfirmed_first, "unconfirmed_last": before.unconfirmed_last}
    if outcome.stale and outcome.revision >= state.applied_revision:
        changes |= {"ahead_since": state.ahead_since or now, "last_contact": now}
    if outcome.state == Push.State.SUCCEEDED:
        return changes | {"attempts": 0, "next_attempt": None, "behind_since": None}
    return changes | {
        "next_attempt": now + backoff(claim.attempts, permanent=outcome.permanent),
        "behind_since": state.behind_since or now,
    }


def _store_offered_key(server: Server, outcome: Outcome) -> None:
    """Store the host key that a server offers instead of the pinned one; audited once per key, not per attempt."""
    offered = outcome.offered or ("" if outcome.answer is not None else server.offered_host_key)
    if offered == server.offered_host_key:
        return
    Server.objects.filter(pk=server.pk).update(offered_host_key=offered)
    if offered:
        fresh = Server(host_key=server.host_key, offered_host_key=outcome.offered)
        audit.record(
            actor="worker",
            verb="server.host_key_refused",
            object=server.name,
            detail={"pinned": fresh.fingerprint, "offered": fresh.offered_fingerprint},
        )


def _count(push: Push, answer: Answer) -> None:
    """Count only people who have something there; register's key file belongs to no person."""
    here = answer.of_people_here().users
    push.results = {name: result.as_json() for name, result in sorted(here.items())}
    push.written = sum(1 for result in here.values() if "written" in (result.host, result.container))
    push.unchanged = len(here) - push.written - sum(1 for result in here.values() if result.failed)


@transaction.atomic
def record_status(server: Server, answer: Answer) -> None:
    """Record the status that a server reported. `server` and its state are as before the question.

    A new container, or other keys than the server had confirmed, lead to a push, which reports the rest.
    """
    now, mine = timezone.now(), ServerState.objects.filter(pk=server.pk)
    ahead = Coalesce("ahead_since", now) if _is_ahead(server, answer) else None
    mine.update(
        labhost_version=answer.labhost,
        driver_version=answer.driver,
        storage=answer.storage,
        reported_revision=answer.revision,
        last_contact=now,
        inspected_at=now,
        **({"ahead_since": ahead} if ahead or answer.digest == server.state.applied_digest else {}),
    )
    if server.state.applied_digest and answer.revision < server.state.applied_revision:
        lost = mine.filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now))
        lost = lost.filter(applied_revision=server.state.applied_revision, applied_digest=server.state.applied_digest)
        held = {"applied_revision": answer.revision, "applied_digest": answer.digest}
        if lost.update(**held, behind_since=now, next_attempt=now):
            placements.forget_confirmations(server, above=answer.revision)
            queue.enqueue(queue.PUSH)
    if placements.record_containers(server, answer.containers, now=now) and server.enabled:
        Push.objects.get_or_create(server=server, state=Push.State.QUEUED, defaults={"trigger": "new container"})
        queue.enqueue(queue.PUSH)


def _is_ahead(server: Server, answer: Answer) -> bool:
    """Whether it holds a revision above the portal's, or the same with other keys: another history."""
    state = server.state
    is_other = answer.revision == state.applied_revision and answer.digest not in ("", state.applied_digest)
    return answer.revision > keys.current_revision() or (bool(state.applied_digest) and is_other)


def prune(server: Server) -> None:
    """Delete pushes beyond the last MAX_PUSHES."""
    latest = Push.objects.filter(server=server).values_list("pk", flat=True)[:MAX_PUSHES]
    oldest = min(latest, default=None)
    if oldest is not None and len(latest) == MAX_PUSHES:
        Push.objects.filter(server=server, pk__lt=oldest, finished_at__isnull=False).delete()
