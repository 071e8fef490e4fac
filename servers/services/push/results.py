"""Record the outcome of pushes and the status that servers report."""

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone

from accounts.services import audit, revision
from servers import disks
from servers.models import Push, Server, ServerState
from servers.protocol import Answer, Message
from servers.services.push import guard, revocations
from servers.services.status import placements
from servers.services.worker import queue

log = logging.getLogger(__name__)

BACKOFF_FIRST, BACKOFF_MOST = 2.0, 300.0
MAX_PUSHES = 50  # of each server


@dataclass(frozen=True)
class Claim:
    """A server, as before it was claimed until `lease`. `attempts` includes this one; `is_requested`: by a person."""

    server: Server
    push: Push
    lease: datetime
    attempts: int
    is_requested: bool = False


@dataclass(frozen=True)
class Outcome:
    """`answer` is None if nothing was applied; `offered` is a host key that was refused.

    `whole`: the answer covers everybody, otherwise only the people that the push named. `stale`: the server
    holds a revision that is not in this database. `is_sent`: the keys may have reached the server.
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


Results = Sequence[tuple[Claim, Outcome]]


def is_free(now: datetime) -> Q:
    """Servers that no worker serves."""
    return Q(lease_until__isnull=True) | Q(lease_until__lt=now)


def evaluate(revision: int, digest: str, answer: Answer, *, whole: bool = True) -> Outcome:
    """What the answer to a push of this revision and digest means."""
    if answer.code == "stale_revision":
        return Outcome(Push.State.FAILED, revision, error=Message("server_ahead"), permanent=True, stale=True)
    if not answer.ok and answer.code != "partial":
        return Outcome(Push.State.FAILED, revision, error=answer.error)
    if (answer.revision, answer.digest) != (revision, digest):
        return Outcome(Push.State.FAILED, revision, error=Message("other_revision"))
    failed = sum(1 for result in answer.users.values() if result.failed or result.refused)
    if whole:  # people who are not mentioned have nothing there
        answer = answer.of_people_here()
    if failed or not answer.ok:
        error = Message("people_failed", {"count": failed}) if failed else answer.error
        if answer.register == "failed":
            error = Message("register_failed")
        return Outcome(Push.State.PARTIAL, revision, digest, error, answer, whole=whole)
    return Outcome(Push.State.SUCCEEDED, revision, digest, None, answer, whole=whole)


def taken_away(revision: int, digest: str, answer: Answer, error: Message) -> Outcome:
    """What the answer of a server means that is ahead: `error` says why it did not get all keys of the revision.

    If it took away what it should not hold, that is noted as this revision, which it then does not exceed.
    """
    is_done = (answer.ok or answer.code == "partial") and error.reason == "server_ahead"
    if not answer.ok and answer.code != "partial":
        error = answer.error or error
    found: dict[str, Any] = {"error": error, "permanent": True, "stale": True, "whole": False}
    if not is_done:
        return Outcome(Push.State.FAILED, revision, **found)
    return Outcome(Push.State.PARTIAL, revision, digest, answer=answer, **found)


def backoff(attempts: int, *, permanent: bool = False) -> timedelta:
    """2, 4, 8 ... 300 seconds, each up to a fifth longer or shorter, so that retries spread out."""
    seconds = BACKOFF_MOST if permanent else min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(attempts - 1, 10))
    return timedelta(seconds=min(BACKOFF_MOST, seconds * random.uniform(0.8, 1.2)))  # noqa: S311 - no secret


def record_all(results: Results) -> list[Push]:
    """Record in one transaction what each server holds now, then what it reported; return the pushes still claimed."""
    now, leases = timezone.now(), {claim.server.pk: claim.lease for claim, _ in results}
    with transaction.atomic():
        rows = ServerState.objects.select_related("server").select_for_update(of=("self",)).filter(pk__in=leases)
        held = {state.pk: state for state in rows if state.lease_until == leases[state.pk]}
        ours = [(claim, outcome) for claim, outcome in results if claim.server.pk in held]
        # Failed key files are recorded before the server counts as up to date, so that no key looks live meanwhile.
        for claim, outcome in ours:
            if outcome.state != Push.State.SUCCEEDED:
                _note_answer(claim, outcome, now)
        _update_servers(ours, held, now)
        _finish_pushes(ours, now)
        applied = [(claim.server, outcome.answer) for claim, outcome in ours if outcome.answer is not None]
        ahead = {claim.server.pk for claim, outcome in ours if outcome.stale}
        placements.record_confirmations([pair for pair in applied if pair[0].pk not in ahead], now=now)
        guard.close([server for server, _ in applied], guard.State.APPLIED)
    for claim, outcome in ours:
        if outcome.state == Push.State.SUCCEEDED:
            try:
                _note_answer(claim, outcome, now)
            except Exception:  # what it holds is recorded; the next push reports the rest again
                log.exception("The report of %s about people could not be recorded.", claim.server.name)
    for claim, outcome in ours:
        if outcome.answer is not None:  # after the transaction: keys change under a lock that comes before its own
            _record_revocations(claim.server, outcome.answer)
    return [claim.push for claim, _ in ours]


def _record_revocations(server: Server, answer: Answer) -> None:
    try:
        revocations.record(server, answer)
    except Exception:  # the server reports them again
        log.exception("The keys revoked on %s could not be recorded.", server.name)


def _update_servers(ours: Results, held: Mapping[int, ServerState], now: datetime) -> None:
    changes = []
    for claim, outcome in ours:
        state = held[claim.server.pk]
        if outcome.offered or outcome.answer is not None:
            record_offered_key(actor="worker", server=state.server, offered=outcome.offered)
        ended = {"lease_until": None, "last_error": outcome.error}
        changes.append((state.pk, ended | _changes(state, claim, outcome, now)))
    _update_alike(ServerState.objects.all(), changes)


def _finish_pushes(ours: Results, now: datetime) -> None:
    changes = []
    for claim, outcome in ours:
        end = {"state": outcome.state, "finished_at": now, "error": outcome.error, "revision": outcome.revision}
        for name, value in end.items():
            setattr(claim.push, name, value)
        changes.append((claim.push.pk, end))
    _update_alike(Push.objects.all(), changes)


def _update_alike(rows: QuerySet[Any], changes: Iterable[tuple[int, Mapping[str, object]]]) -> None:
    """One statement for all rows with the same changes: usually that all is well."""
    alike: dict[tuple[tuple[str, object], ...], list[int]] = {}
    for pk, values in changes:
        alike.setdefault(tuple(values.items()), []).append(pk)
    for pairs, pks in alike.items():
        rows.filter(pk__in=pks).update(**dict(pairs))


@transaction.atomic
def _note_answer(claim: Claim, outcome: Outcome, now: datetime) -> None:
    """Store the results of people who have something there; register's key file belongs to no person."""
    if outcome.answer is None:
        return
    push, here = claim.push, outcome.answer.of_people_here().users
    push.results = {name: result.as_json() for name, result in sorted(here.items())}
    push.written = sum(1 for result in here.values() if "written" in (result.host, result.container))
    push.unchanged = len(here) - push.written - sum(1 for result in here.values() if result.failed)
    push.save(update_fields=["results", "written", "unchanged"])
    placements.record_answer(claim.server, outcome.answer, whole=outcome.whole, now=now)


def _changes(state: ServerState, claim: Claim, outcome: Outcome, now: datetime) -> dict[str, object]:
    changes: dict[str, object] = {}
    if outcome.answer is not None:
        changes |= dict.fromkeys(("applied_revision", "attempted_revision"), outcome.revision)
        changes |= {"reported_revision": outcome.answer.revision}
        changes |= {} if outcome.stale else {"adopted_id": ""}
        changes |= dict.fromkeys(("ahead_since", "unconfirmed_first", "unconfirmed_last"))
        changes |= {"applied_digest": outcome.digest, "last_contact": now}
        if outcome.whole:
            changes["inspected_at"] = now
    elif not outcome.is_sent:  # as before the claim
        before = claim.server.state
        changes |= {"unconfirmed_first": before.unconfirmed_first, "unconfirmed_last": before.unconfirmed_last}
    if outcome.stale and outcome.revision >= state.applied_revision:
        changes |= {"ahead_since": state.ahead_since or now, "last_contact": now}
    if outcome.state == Push.State.SUCCEEDED:
        return changes | {"attempts": 0, "next_attempt": None, "behind_since": None}
    retry = now + backoff(claim.attempts, permanent=outcome.permanent)
    return changes | {"next_attempt": retry, "behind_since": state.behind_since or now}


def record_offered_key(*, actor: str, server: Server, offered: str) -> None:
    """Store the host key that a server offers instead of the pinned one, "" for none. Audited once per key."""
    if offered == server.offered_host_key:
        return
    server.offered_host_key = offered
    with transaction.atomic():
        Server.objects.filter(pk=server.pk).update(offered_host_key=offered)
        if offered:
            detail = {"pinned": server.fingerprint, "offered": server.offered_fingerprint}
            audit.record(actor=actor, verb="server.host_key_refused", object=server.name, detail=detail)


@transaction.atomic
def record_status(server: Server, answer: Answer) -> None:
    """Record the status that a server reported. `server` and its state are as before the question.

    A new container, or other keys than the server had confirmed, lead to a push, which reports the rest.
    """
    now, mine = timezone.now(), ServerState.objects.filter(pk=server.pk)
    revocations.record(server, answer)
    is_ahead = _is_ahead(server, answer)
    mine.update(
        labhost_version=answer.labhost,
        labhost_build=answer.build,
        driver_version=answer.driver,
        storage=answer.storage,
        disks=disks.as_json(answer.disks),
        reported_revision=answer.revision,
        last_contact=now,
        inspected_at=now,
        **({"ahead_since": Coalesce("ahead_since", now)} if is_ahead else {}),
        **({"ahead_since": None} if not is_ahead and answer.digest == server.state.applied_digest else {}),
    )
    free = mine.filter(is_free(now))
    if is_ahead and free.update(next_attempt=now):
        queue.enqueue(queue.PUSH)
    elif server.state.applied_digest and answer.revision < server.state.applied_revision:
        lost = free.filter(applied_revision=server.state.applied_revision, applied_digest=server.state.applied_digest)
        held = {"applied_revision": answer.revision, "applied_digest": answer.digest}
        if lost.update(**held, behind_since=now, next_attempt=now):
            placements.forget_confirmations(server, above=answer.revision)
            queue.enqueue(queue.PUSH)
    if placements.record_containers(server, answer.containers, now=now) and server.enabled:
        Push.objects.get_or_create(server=server, state=Push.State.QUEUED, defaults={"trigger": "new container"})
        queue.enqueue(queue.PUSH)


def _is_ahead(server: Server, answer: Answer) -> bool:
    """Whether it holds a revision that is not in this database, or one that it confirmed with other keys."""
    state = server.state
    is_other = answer.revision == state.applied_revision and answer.digest not in ("", state.applied_digest)
    return not revision.knows(answer.revision, answer.id) or (bool(state.applied_digest) and is_other)


def prune(server: Server) -> None:
    """Delete pushes beyond the last MAX_PUSHES."""
    latest = Push.objects.filter(server=server).values_list("pk", flat=True)[:MAX_PUSHES]
    oldest = min(latest, default=None)
    if oldest is not None and len(latest) == MAX_PUSHES:
        Push.objects.filter(server=server, pk__lt=oldest, finished_at__isnull=False).delete()
