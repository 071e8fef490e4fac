"""Make or remove a person's container on a server: an order in a row, carried out by the worker over SSH."""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from accounts.models import User
from accounts.services import audit
from servers import protocol
from servers.models import ContainerJob, Server
from servers.processes import lease_holder
from servers.services import remote
from servers.services.push import results
from servers.services.worker import queue, thread_pool
from servers.ssh.dial import RemoteError
from servers.ssh.host import ask

log = logging.getLogger(__name__)

THREADS = 10
SECONDS = 240.0  # one registration; the template is unpacked in it
PASS_SECONDS = 40.0
LEASE = timedelta(seconds=SECONDS + 20)
MAX_ATTEMPTS = 3
MAX_LOG = 64 * 1024
WRITE_EVERY = 0.5  # seconds between updates of the log, which a page reads meanwhile
POSTPONE_LEAST, POSTPONE_MOST = 10.0, 300.0
State, Kind = ContainerJob.State, ContainerJob.Kind


_REQUESTED = {
    Kind.REGISTER: "container.requested",
    Kind.REMOVE: "container.removal_requested",
    Kind.SUSPEND: "container.suspension_requested",
}
_VERBS: dict[tuple[str, bool], str] = {
    (Kind.REGISTER, True): "container.registered",
    (Kind.REGISTER, False): "container.failed",
    (Kind.REMOVE, True): "container.removed",
    (Kind.REMOVE, False): "container.removal_failed",
    (Kind.SUSPEND, True): "container.suspended",
    (Kind.SUSPEND, False): "container.suspension_failed",
}


class JobRefused(Exception):
    """This order cannot be given; the message says what to do."""


@dataclass(frozen=True)
class _Claim:
    registration: ContainerJob
    lease: datetime


class _Log:
    """Progress lines of the server, written to the row while they come."""

    def __init__(self, row: ContainerJob, tell: Callable[[str], None] | None) -> None:
        self._row, self._tell, self._text, self._written = row, tell, "", 0.0

    def __call__(self, line: str) -> None:
        if len(self._text) + len(line) < MAX_LOG:
            self._text += line + "\n"
        if self._tell is not None:
            self._tell(line)
        if time.monotonic() - self._written >= WRITE_EVERY:
            self.flush()

    def flush(self) -> None:
        self._written = time.monotonic()
        ContainerJob.objects.filter(pk=self._row.pk).update(log=self._text)


def request(*, actor: str, server: Server, user: User) -> ContainerJob:
    """Order a container of `user` on `server`, or give the open order. Raises RegistrationRefused."""
    if not server.enabled:
        raise JobRefused(f"{server.name} is disabled: enable it first.")
    if not user.is_active or not hasattr(user, "port"):
        raise JobRefused(f"{user.username} has no port or is locked out: let this person sign in once.")
    return enqueue_job(actor=actor, server=server, user=user, kind=Kind.REGISTER)


@transaction.atomic
def enqueue_job(*, actor: str, server: Server, user: User, kind: str, purge: bool = False) -> ContainerJob:
    """The open order of this kind, made if there is none. Raises RegistrationRefused if there is another's."""
    order, is_new = ContainerJob.objects.get_or_create(
        server=server,
        user=user,
        state__in=[State.QUEUED, State.RUNNING],
        defaults={"requested_by": actor[:64], "state": State.QUEUED, "kind": kind, "purge": purge},
    )
    if (order.kind, order.purge) != (kind, purge):
        raise JobRefused(f"Another order for {user.username} on {server.name} is open: wait for its end.")
    if is_new:
        detail = {"server": server.name, "purge": purge}
        audit.record(actor=actor, verb=_REQUESTED[Kind(kind)], object=user.username, detail=detail)
    queue.enqueue(queue.CONTAINER_JOBS)
    return order


def run_waiting(*, only: ContainerJob | None = None, tell: Callable[[str], None] | None = None) -> int:
    """Carry out the orders that wait (or `only` this one); gives how many were begun."""
    begun = 0

    def claim(room: int) -> list[_Claim]:
        nonlocal begun
        most = room if only is None else 1 - begun  # one that had to be postponed is not tried again at once
        claimed = list(islice(iter(lambda: _claim(only), None), most))
        begun += len(claimed)
        return claimed

    thread_pool.serve(
        claim,
        lambda job: _carry_out(job, tell),
        pending=lambda: False,
        threads=THREADS,
        seconds=PASS_SECONDS,
    )
    return begun


def recover_interrupted() -> int:
    """Orders whose worker is gone wait again, or fail after MAX_ATTEMPTS. Gives how many wait now."""
    running = ContainerJob.objects.filter(state=State.RUNNING)
    held = running.values_list("lease_holder", flat=True)
    gone = [holder for holder in set(held) if lease_holder.is_gone(holder)]
    lost = running.filter(Q(lease_until__lt=timezone.now()) | Q(lease_holder__in=gone))
    words = f"The worker stopped {MAX_ATTEMPTS} times in the middle of it; see its log, then order it again."
    lost.filter(attempts__gte=MAX_ATTEMPTS).update(
        state=State.FAILED, finished_at=timezone.now(), lease_until=None, error=words
    )
    lost.update(state=State.QUEUED, lease_until=None)
    return _waiting(None).count()


def _waiting(only: ContainerJob | None) -> QuerySet[ContainerJob]:
    """Orders that are due; `only` this one, due or not."""
    waiting = ContainerJob.objects.filter(state=State.QUEUED)
    if only is not None:
        return waiting.filter(pk=only.pk)
    return waiting.filter(Q(next_attempt__isnull=True) | Q(next_attempt__lte=timezone.now()))


def _claim(only: ContainerJob | None) -> _Claim | None:
    for row in _waiting(only).select_related("server", "user").order_by("pk")[:THREADS]:
        lease = timezone.now() + LEASE
        taken = _waiting(row).update(
            state=State.RUNNING,
            attempts=F("attempts") + 1,
            lease_until=lease,
            lease_holder=lease_holder.current(),
            started_at=timezone.now(),
            log="",
        )
        if taken:
            return _Claim(row, lease)
    return None


def _carry_out(claim: _Claim, tell: Callable[[str], None] | None) -> None:
    row, lines = claim.registration, _Log(claim.registration, tell)
    try:
        error = _order(row, lines)
    except RemoteError as failure:
        error = failure.message
        if row.kind != Kind.REGISTER and not failure.permanent:
            lines.flush()
            _postpone(claim, error)
            return
    except Exception:
        log.exception("The registration of %s failed in an unforeseen way.", row)
        error = "Internal error; see the worker's log."
    lines.flush()
    _finish(claim, error)


def _order(row: ContainerJob, lines: _Log) -> str:
    """ "" if the container is there (or gone), else the reason. The server's containers are noted in either case."""
    server, name = row.server, row.user.username
    if row.kind == Kind.REMOVE:
        verb, request_ = protocol.REMOVE, protocol.build_remove(name, purge=row.purge)
    elif row.kind == Kind.SUSPEND:
        verb, request_ = protocol.SUSPEND, protocol.build_suspend(name)
    else:
        verb, request_ = protocol.REGISTER, protocol.build_register(name)
    with remote.connect(server, seconds=SECONDS) as host:
        answer = ask(host, verb, protocol.frame(request_), on_line=lines)
        with contextlib.suppress(RemoteError):  # the order itself is answered; a push tells the same later
            status = ask(host, protocol.STATUS, protocol.frame(protocol.build_status()))
            if status.ok:
                results.record_status(server, status)
    if row.kind != Kind.REGISTER and answer.code == "busy":
        raise RemoteError("busy", f"{server.name}: {answer.error and answer.error.reason}")
    is_gone = row.kind != Kind.REGISTER and answer.code == "not_registered"
    return "" if answer.ok or is_gone else f"{server.name}: {answer.error and answer.error.reason}"


def _postpone(claim: _Claim, error: str) -> None:
    """A server that is away or busy does not end a removal or suspension: it waits half as long as it has waited."""
    row, now = claim.registration, timezone.now()
    seconds = min(POSTPONE_MOST, max(POSTPONE_LEAST, (now - row.created_at).total_seconds() / 2))
    ContainerJob.objects.filter(pk=row.pk, state=State.RUNNING, lease_until=claim.lease).update(
        state=State.QUEUED,
        attempts=0,  # counts what ended without an answer of ours: a worker that died
        lease_until=None,
        next_attempt=now + timedelta(seconds=seconds),
        error=error[:500],
    )


@transaction.atomic
def _finish(claim: _Claim, error: str) -> None:
    row = claim.registration
    mine = ContainerJob.objects.filter(Q(lease_until=claim.lease), pk=row.pk, state=State.RUNNING)
    done = mine.update(
        state=State.FAILED if error else State.SUCCEEDED,
        error=error[:500],
        lease_until=None,
        finished_at=timezone.now(),
    )
    if done:
        audit.record(
            actor=row.requested_by,
            verb=_VERBS[row.kind, not error],
            object=row.user.username,
            detail={"server": row.server.name} | ({"error": error[:300]} if error else {}),
        )
