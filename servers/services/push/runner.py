"""Bring every server in service to the current revision: claim, push, record, back off."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone

from accounts.services import audit, keys
from servers.models import Push, Server, ServerState
from servers.processes import lease_holder
from servers.protocol import Message
from servers.services import remote
from servers.services.push import guard, other_state, results
from servers.services.push.payloads import Payload, Payloads
from servers.services.push.results import Claim, Outcome
from servers.services.worker import queue, thread_pool
from servers.ssh.dial import RemoteError

log = logging.getLogger(__name__)

THREADS = 48  # enough that servers that hang do not delay the others; handshakes have their own limit
SERVER_SECONDS = 60.0
PASS_SECONDS = 180.0  # plus SERVER_SECONDS for the last servers: below the task's timeout of 300
LEASE = timedelta(seconds=2 * SERVER_SECONDS)
SPACING = timedelta(seconds=3)  # between pushes to one server, so that a burst of edits takes few pushes
QUICK_RETRY = timedelta(seconds=5)  # a pass waits for retries that are due so soon; reconcile makes the later ones
AFTER_A_CRASH = timedelta(seconds=10)  # at most, from the end of a worker to the retry of the servers that it served
INTERRUPTED = Message("interrupted")


@dataclass(frozen=True)
class _Job:
    """The work of one thread: push this payload to this server, or everybody's keys if it holds another base."""

    claim: Claim
    payloads: Payloads
    payload: Payload
    held_back: RemoteError | None = None


def request_push(*, actor: str, servers: Collection[Server]) -> list[Push]:
    """Queue a push to each of these servers in service, also if it is up to date; return the queued pushes."""
    with transaction.atomic():
        pushes = []
        for server in (server for server in servers if server.enabled):
            push, is_new = Push.objects.get_or_create(
                server=server, state=Push.State.QUEUED, defaults={"trigger": actor[:64]}
            )
            pushes.append(push)
            if is_new:
                audit.record(actor=actor, verb="server.push_requested", object=server.name)
        queue.enqueue(queue.PUSH)
    return pushes


def retry_now(*, servers: Collection[Server]) -> int:
    """Make servers that are behind due now; return how many."""
    behind = ServerState.objects.filter(pk__in=[server.pk for server in servers if server.enabled]).filter(
        Q(applied_revision__lt=keys.current_revision()) | Q(next_attempt__isnull=False)
    )
    return behind.filter(results.is_free(timezone.now())).update(next_attempt=timezone.now())


def push_due(
    *, actor: str, servers: Collection[Server] | None = None, report: Callable[[Push], None] | None = None
) -> list[Push]:
    """Push to every server in service (or of `servers`) that is due, until none is; call `report` after each push."""
    done: list[Push] = []
    wanted = None if servers is None else {server.pk for server in servers}

    def record(outcomes: list[tuple[Claim, Outcome]]) -> None:
        for push in results.record_all(outcomes):
            done.append(push)
            if report is not None:
                report(push)

    thread_pool.serve(
        lambda room: _jobs(_claim(actor, wanted, room)),
        lambda job: (job.claim, _push(job)),
        record=record,
        pending=lambda: _due(timezone.now() + QUICK_RETRY, wanted).exists(),
        threads=THREADS,
        seconds=PASS_SECONDS,
    )
    return done


def server_online(server: Server) -> bool:
    """A server reports that it is online: make its next retry due now; False if none is planned."""
    now = timezone.now()
    waiting = ServerState.objects.filter(_rested(now), results.is_free(now), pk=server.pk, next_attempt__gt=now)
    if not server.enabled or not waiting.update(next_attempt=now):
        return False
    queue.enqueue(queue.PUSH)
    return True


def close_interrupted() -> int:
    """Close pushes whose worker has ended and make their servers due again; return how many."""
    now = timezone.now()
    # Leases of processes of this machine that have ended are released instead of waiting until they expire. The end of
    # a worker is no fault of the servers, so their retry is due within seconds.
    held = ServerState.objects.filter(lease_until__gte=now)
    for state in [state for state in held if lease_holder.is_gone(state.lease_holder)]:
        held.filter(pk=state.pk, lease_holder=state.lease_holder).update(
            lease_until=None, next_attempt=now + min(results.backoff(state.attempts), AFTER_A_CRASH)
        )
    lost = Push.objects.filter(state=Push.State.RUNNING).exclude(server__state__lease_until__gte=now)
    return lost.update(state=Push.State.FAILED, finished_at=now, error=INTERRUPTED)


def is_pending(within: timedelta = QUICK_RETRY) -> bool:
    """Whether a server is due now or within seconds, so that a pass would wait for it."""
    return _due(timezone.now() + within, None).exists()


def is_active() -> bool:
    """Whether a push runs or is due within seconds, so that a page should keep refreshing."""
    # In this order: a push that is due may be running a moment later, but not the reverse.
    return is_pending() or Push.objects.filter(state=Push.State.RUNNING, server__enabled=True).exists()


def _rested(now: datetime) -> Q:
    return Q(attempted_at__isnull=True) | Q(attempted_at__lte=now - SPACING)


def _due(now: datetime, wanted: Collection[int] | None, revision: int | None = None) -> QuerySet[ServerState]:
    """Servers without a lease that have a queued push, are due for a retry, or lack a new revision."""
    queued = Exists(Push.objects.filter(server=OuterRef("pk"), state=Push.State.QUEUED))
    revision = keys.current_revision() if revision is None else revision
    new = Q(attempted_revision__lt=revision) & _rested(now)
    due = ServerState.objects.filter(
        queued | Q(next_attempt__lte=now) | new, results.is_free(now), server__enabled=True
    )
    return due if wanted is None else due.filter(pk__in=wanted)


def _claim(trigger: str, wanted: Collection[int] | None, room: int) -> list[Claim]:
    """Claim due servers in one transaction. Those that failed come last, so that they do not delay the others."""
    now, revision = timezone.now(), keys.current_revision()
    due = _due(now, wanted, revision)
    if not due.exists():  # a transaction would have to wait for other writers
        return []
    with transaction.atomic():
        rows = due.select_related("server").select_for_update(skip_locked=True, of=("self",))
        taken = [state.server for state in rows.order_by("attempts", "pk")[:room]]
        return _take(taken, now, trigger, revision) if taken else []


def _take(servers: list[Server], now: datetime, trigger: str, revision: int) -> list[Claim]:
    lease = now + LEASE
    mine = ServerState.objects.filter(pk__in=[server.pk for server in servers])
    # Recorded before the work, so that a push that kills the worker is not repeated without end or pause.
    mine.update(
        lease_until=lease,
        lease_holder=lease_holder.current(),
        attempted_at=now,
        attempted_revision=revision,
        attempts=F("attempts") + 1,
        next_attempt=lease,
        unconfirmed_first=Coalesce("unconfirmed_first", revision),
        unconfirmed_last=revision,
    )
    mine.filter(applied_revision__lt=revision, behind_since=None).update(behind_since=now)
    queued = {push.server_id: push for push in Push.objects.filter(server__in=servers, state=Push.State.QUEUED)}
    pushes = queued | {server.pk: Push(server=server) for server in servers if server.pk not in queued}
    _begin(pushes, queued.keys(), {"state": Push.State.RUNNING, "started_at": now, "revision": revision}, trigger)
    return [
        Claim(server, pushes[server.pk], lease, server.state.attempts + 1, server.pk in queued) for server in servers
    ]


def _begin(pushes: Mapping[int, Push], queued: Collection[int], begun: dict[str, Any], trigger: str) -> None:
    """Each server gets one running push: its queued one, if there is one, or a new one."""
    lost = Push.objects.filter(server__in=pushes.keys(), state=Push.State.RUNNING)
    lost.update(state=Push.State.FAILED, finished_at=begun["started_at"], error=INTERRUPTED)
    for push in pushes.values():
        for name, value in begun.items():
            setattr(push, name, value)
        push.trigger = push.trigger or trigger[:64]
    if queued:
        Push.objects.filter(pk__in=[pushes[server].pk for server in queued]).update(**begun)
    Push.objects.bulk_create(push for server, push in pushes.items() if server not in queued)


def _jobs(claims: list[Claim]) -> list[_Job]:
    """Add what is sent to each. Read after the claim, so that it is at least the claimed revision."""
    if not claims:
        return []
    payloads = Payloads()
    if payloads.revision > claims[0].push.revision:  # a key changed since the claim
        states = ServerState.objects.filter(pk__in=[claim.server.pk for claim in claims])
        states.update(unconfirmed_last=payloads.revision)
    small, large, recent = list[_Job](), list[_Job](), guard.recent_losers()
    for claim in claims:  # a requested push rewrites every key file; any other sends only the changes
        payload = payloads.everybody(claim.server) if claim.is_requested else payloads.for_server(claim.server)
        (large if guard.may_remove_many(payload.names, recent) else small).append(_Job(claim, payloads, payload))
    guard.close([job.claim.server for job in small])
    if large:
        guard.save_snapshot(payloads.revision, payloads.digest, payloads.users)
    return small + [replace(job, held_back=_held_back(job)) for job in large]


def _held_back(job: _Job) -> RemoteError | None:
    """Checked here because threads need no database, except for the rare server with another base."""
    try:
        step = job.payload.step
        guard.check(job.claim.server, step.revision, step.digest)
    except RemoteError as error:
        return error
    return None


def _push(job: _Job) -> Outcome:
    """Never raises: every fault of a server is its outcome."""
    server, payload = job.claim.server, job.payload
    is_sent = False
    try:
        if job.held_back is not None:
            raise job.held_back
        with remote.push_session(server, seconds=SERVER_SECONDS) as line:
            line.connect()
            is_sent = True
            answer = line.ask(payload.request)
            if answer.code in other_state.CODES:
                return other_state.push(server, job.payloads, payload, answer, line.ask)
        return results.evaluate(payload.step.revision, payload.step.digest, answer, whole=payload.names is None)
    except RemoteError as error:
        detail: dict[str, Any] = {"error": error.message, "permanent": error.permanent, "offered": error.offered}
        return Outcome(Push.State.FAILED, payload.step.revision, **detail, is_sent=is_sent)
    except Exception:
        log.exception("The push to %s failed in an unforeseen way.", server.name)
        return Outcome(Push.State.FAILED, payload.step.revision, error=Message("internal_error"))
