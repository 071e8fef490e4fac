"""Bring every enabled server to the current revision: claim, push, write down, back off."""

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from accounts.services import audit, keys
from servers import protocol
from servers.dialing import RemoteError
from servers.models import Server, Sync
from servers.remote import ask
from servers.services import hosts, pool, queue, recording
from servers.services.recording import Claim, Outcome

log = logging.getLogger(__name__)

THREADS = 10
SERVER_SECONDS = 60.0
PASS_SECONDS = 180.0  # and the last ones SERVER_SECONDS more: below the task's timeout of 300
LEASE = timedelta(seconds=2 * SERVER_SECONDS)
SPACING = timedelta(seconds=3)  # between pushes of new revisions to one server: a burst of edits is few pushes
QUICK_RETRY = timedelta(seconds=5)  # a pass waits for tries that are due so soon, later ones are reconcile's
INTERRUPTED = "The worker stopped in the middle of it; it is tried again."


@dataclass(frozen=True)
class _Payload:
    revision: int
    digest: str
    framed: bytes


class _Payloads:
    """The framed keys of the current revision, built once for all servers of a pass."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: _Payload | None = None

    def current(self) -> _Payload:
        with self._lock:
            if self._latest is None or self._latest.revision != keys.current_revision():
                state = keys.current_state()
                request = protocol.build_set_keys(state.revision, state.users)
                self._latest = _Payload(state.revision, request["digest"], protocol.frame(request))
            return self._latest


def request_push(*, actor: str, servers: Collection[Server]) -> list[Sync]:
    """Order a push to these servers now, whatever they have applied already. Gives the open order of each."""
    with transaction.atomic():
        orders = []
        for server in servers:
            if not server.enabled:
                continue
            order, is_new = Sync.objects.get_or_create(
                server=server, state=Sync.State.QUEUED, defaults={"trigger": actor[:64]}
            )
            orders.append(order)
            if is_new:
                audit.record(actor=actor, verb="server.push_requested", object=server.name)
        queue.soon(queue.CONVERGE)
    return orders


def hasten(*, servers: Collection[Server]) -> int:
    """Let servers that are behind be tried now instead of at their next try; gives how many are behind."""
    behind = Server.objects.filter(pk__in=[server.pk for server in servers], enabled=True).filter(
        Q(applied_revision__lt=keys.current_revision()) | Q(next_attempt__isnull=False)
    )
    return behind.filter(_is_free(timezone.now())).update(next_attempt=timezone.now())


def converge(
    *,
    actor: str,
    servers: Collection[Server] | None = None,
    tell: Callable[[Sync], None] | None = None,
) -> list[Sync]:
    """Push to every enabled server (or to those of `servers`) that is due, until none is.

    `actor` is noted as what triggered the pushes; `tell` is called from several threads, after each of them.
    """
    done: list[Sync] = []
    payloads = _Payloads()
    wanted = None if servers is None else {server.pk for server in servers}

    def deliver(claim: Claim) -> None:
        sync = recording.record(claim, _push(claim, payloads))
        if sync is not None:
            done.append(sync)
            if tell is not None:
                tell(sync)

    pool.serve(
        lambda: _claim(actor, wanted),
        deliver,
        pending=lambda: _due(timezone.now() + QUICK_RETRY, wanted).exists(),
        threads=THREADS,
        seconds=PASS_SECONDS,
    )
    return done


def recover() -> int:
    """Close the pushes whose worker is gone; the servers themselves are due again. Gives how many."""
    now = timezone.now()
    lost = Sync.objects.filter(state=Sync.State.RUNNING).exclude(server__lease_until__gte=now)
    return lost.update(state=Sync.State.FAILED, finished_at=now, error=INTERRUPTED)


def has_due() -> bool:
    return _due(timezone.now(), None).exists()


def is_active() -> bool:
    """Whether a push runs or is due within seconds, so that a page should go on looking."""
    running = Sync.objects.filter(state=Sync.State.RUNNING, server__enabled=True)
    return running.exists() or _due(timezone.now() + QUICK_RETRY, None).exists()


def _is_free(now: datetime) -> Q:
    return Q(lease_until__isnull=True) | Q(lease_until__lt=now)


def _due(now: datetime, wanted: Collection[int] | None) -> QuerySet[Server]:
    """Servers that nobody serves and that are ordered, due for another try, or behind a new revision."""
    ordered = Exists(Sync.objects.filter(server=OuterRef("pk"), state=Sync.State.QUEUED))
    rested = Q(attempted_at__isnull=True) | Q(attempted_at__lte=now - SPACING)
    new = Q(attempted_revision__lt=keys.current_revision()) & rested
    due = Server.objects.filter(ordered | Q(next_attempt__lte=now) | new, _is_free(now), enabled=True)
    return due if wanted is None else due.filter(pk__in=wanted)


def _claim(trigger: str, wanted: Collection[int] | None) -> Claim | None:
    """The next due server, made ours. Those that failed come last, so that they hold up nobody."""
    now = timezone.now()
    for server in _due(now, wanted).order_by("attempts", "pk")[:THREADS]:
        claim = _take(server, now, trigger)
        if claim is not None:
            return claim
    return None


@transaction.atomic
def _take(server: Server, now: datetime, trigger: str) -> Claim | None:
    lease, revision = now + LEASE, keys.current_revision()
    # Counted and dated before the work: what kills the worker is not repeated without end or pause.
    taken = _due(now, [server.pk]).update(
        lease_until=lease,
        attempted_at=now,
        attempted_revision=revision,
        attempts=F("attempts") + 1,
        next_attempt=lease,
    )
    if not taken:
        return None
    Server.objects.filter(pk=server.pk, applied_revision__lt=revision, behind_since=None).update(behind_since=now)
    mine = Sync.objects.filter(server=server)
    mine.filter(state=Sync.State.RUNNING).update(state=Sync.State.FAILED, finished_at=now, error=INTERRUPTED)
    sync = mine.filter(state=Sync.State.QUEUED).first() or Sync(server=server, trigger=trigger[:64])
    sync.state, sync.started_at, sync.revision = Sync.State.RUNNING, now, revision
    sync.save()
    server.refresh_from_db()
    return Claim(server, sync, lease, server.attempts)


def _push(claim: Claim, payloads: _Payloads) -> Outcome:
    """Never raises: whatever happens to one server is the outcome of that server."""
    server = claim.server
    try:
        payload = payloads.current()
        with hosts.connect(server, seconds=SERVER_SECONDS) as host:
            answer = ask(host, protocol.SET_KEYS, payload.framed)
        return recording.judge(server, payload.revision, payload.digest, answer)
    except RemoteError as error:
        return recording.failure(claim.sync.revision, error)
    except Exception:
        log.exception("The push to %s failed in an unforeseen way.", server.name)
        words = f"{server.name}: internal error; see the worker's log."
        return Outcome(Sync.State.FAILED, claim.sync.revision, error=words)
