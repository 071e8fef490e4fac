"""Jobs that register, suspend or remove a person's container: rows, run by the worker over SSH."""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from accounts.models import User
from accounts.services import audit
from servers import protocol
from servers.models import ContainerJob, Server
from servers.processes import lease_holder
from servers.protocol import Message
from servers.services import remote
from servers.services.push import results
from servers.services.worker import queue, thread_pool
from servers.ssh.dial import RemoteError
from servers.ssh.host import ask

log = logging.getLogger(__name__)

THREADS = 10
SECONDS = 240.0  # for one registration, which unpacks the template
PASS_SECONDS = 40.0
LEASE = timedelta(seconds=SECONDS + 20)
MAX_ATTEMPTS = 3
MAX_LOG = 64 * 1024
WRITE_EVERY = 0.5  # seconds between updates of the log, which a page reads meanwhile
POSTPONE_LEAST, POSTPONE_MOST = 10.0, 300.0
State, Kind = ContainerJob.State, ContainerJob.Kind

# The audit verbs of each kind: requested, succeeded, failed.
_AUDIT: dict[str, tuple[str, str, str]] = {
    Kind.REGISTER: ("container.registration_requested", "container.registered", "container.registration_failed"),
    Kind.REMOVE: ("container.removal_requested", "container.removed", "container.removal_failed"),
    Kind.SUSPEND: ("container.suspension_requested", "container.suspended", "container.suspension_failed"),
}


class JobRefused(Exception):
    """The job cannot be queued; the text says what to do."""


@dataclass(frozen=True)
class _Claim:
    job: ContainerJob
    lease: datetime


class _Log:
    """The server's progress lines, written to the row as they come."""

    def __init__(self, job: ContainerJob, report: Callable[[str], None] | None) -> None:
        self._job, self._report, self._text, self._written = job, report, "", 0.0

    def __call__(self, line: str) -> None:
        if len(self._text) + len(line) < MAX_LOG:
            self._text += line + "\n"
        if self._report is not None:
            self._report(line)
        if time.monotonic() - self._written >= WRITE_EVERY:
            self.flush()

    def flush(self) -> None:
        self._written = time.monotonic()
        ContainerJob.objects.filter(pk=self._job.pk).update(log=self._text)


def request_registration(*, actor: str, server: Server, user: User) -> ContainerJob:
    """Queue a job that makes a container, or return the open one. Raises JobRefused."""
    if not user.is_active or not hasattr(user, "port"):
        raise JobRefused(f"{user.username} is locked out or has no port. A port is given at the first sign-in.")
    return _request(actor=actor, server=server, user=user, kind=Kind.REGISTER)


def request_removal(*, actor: str, server: Server, user: User, purge: bool = False) -> ContainerJob:
    """Queue a job that removes the container, or return the open one. Raises JobRefused.

    The files stay on the server unless `purge`. While the server is away, the job waits for it. A person who is
    locked out can be removed too.
    """
    return _request(actor=actor, server=server, user=user, kind=Kind.REMOVE, purge=purge)


def _request(*, actor: str, server: Server, user: User, kind: str, purge: bool = False) -> ContainerJob:
    if not server.enabled:
        raise JobRefused(f"{server.name} is out of service. Take it into service first.")
    return enqueue(actor=actor, server=server, user=user, kind=kind, purge=purge)


@transaction.atomic
def enqueue(*, actor: str, server: Server, user: User, kind: str, purge: bool = False) -> ContainerJob:
    """The open job of this kind, created if there is none. Raises JobRefused if another kind is open."""
    job, is_new = ContainerJob.objects.get_or_create(
        server=server,
        user=user,
        state__in=[State.QUEUED, State.RUNNING],
        defaults={"requested_by": actor[:64], "state": State.QUEUED, "kind": kind, "purge": purge},
    )
    if (job.kind, job.purge) != (kind, purge):
        raise JobRefused(f"Another job for {user.username} on {server.name} is open. Wait until it has finished.")
    if is_new:
        detail = {"server": server.name, "purge": purge}
        audit.record(actor=actor, verb=_AUDIT[kind][0], object=user.username, detail=detail)
    queue.enqueue(queue.CONTAINER_JOBS)
    return job


def run_waiting(*, only: ContainerJob | None = None, report: Callable[[str], None] | None = None) -> int:
    """Run the jobs that are due (or `only` this one); returns how many were started. `report` gets progress lines."""
    started = 0

    def claim(room: int) -> list[_Claim]:
        nonlocal started
        most = room if only is None else 1 - started  # a postponed job is not retried at once
        claimed = list(islice(iter(lambda: _claim(only), None), most))
        started += len(claimed)
        return claimed

    thread_pool.serve(
        claim,
        lambda job: _run(job, report),
        pending=lambda: False,
        threads=THREADS,
        seconds=PASS_SECONDS,
    )
    return started


def recover_interrupted() -> int:
    """Queue jobs again whose worker has ended, or fail them after MAX_ATTEMPTS. Returns how many are due now."""
    running = ContainerJob.objects.filter(state=State.RUNNING)
    held = running.values_list("lease_holder", flat=True)
    gone = [holder for holder in set(held) if lease_holder.is_gone(holder)]
    lost = running.filter(Q(lease_until__lt=timezone.now()) | Q(lease_holder__in=gone))
    fail(lost.filter(attempts__gte=MAX_ATTEMPTS), Message("job_interrupted", {"attempts": MAX_ATTEMPTS}))
    lost.update(state=State.QUEUED, lease_until=None)
    return _due(None).count()


def fail(jobs: QuerySet[ContainerJob], error: Message) -> None:
    jobs.update(state=State.FAILED, finished_at=timezone.now(), lease_until=None, error=error)


def _due(only: ContainerJob | None) -> QuerySet[ContainerJob]:
    """Queued jobs that are due; with `only`, this one, due or not."""
    queued = ContainerJob.objects.filter(state=State.QUEUED)
    if only is not None:
        return queued.filter(pk=only.pk)
    return queued.filter(Q(next_attempt__isnull=True) | Q(next_attempt__lte=timezone.now()))


def _claim(only: ContainerJob | None) -> _Claim | None:
    for job in _due(only).select_related("server__state", "user").order_by("pk")[:THREADS]:
        lease = timezone.now() + LEASE
        taken = _due(job).update(
            state=State.RUNNING,
            attempts=F("attempts") + 1,
            lease_until=lease,
            lease_holder=lease_holder.current(),
            started_at=timezone.now(),
            log="",
        )
        if taken:
            return _Claim(job, lease)
    return None


def _run(claim: _Claim, report: Callable[[str], None] | None) -> None:
    job, progress = claim.job, _Log(claim.job, report)
    try:
        error = _ask(job, progress)
    except RemoteError as failure:
        error = failure.message
        if job.kind != Kind.REGISTER and not failure.permanent:
            progress.flush()
            _postpone(claim, error)
            return
    except Exception:
        log.exception("The job failed unexpectedly: %s", job)
        error = Message("internal_error")
    progress.flush()
    _finish(claim, error)


def _ask(job: ContainerJob, progress: _Log) -> Message | None:
    """Have the server do it, then record its containers. Returns why it failed, or None. Raises RemoteError."""
    verb, request = _request_of(job)
    with remote.connect(job.server, seconds=SECONDS) as host:
        answer = ask(host, verb, protocol.frame(request), on_line=progress)
        with contextlib.suppress(RemoteError):  # the job itself is answered; the next push reports the same
            status = ask(host, protocol.STATUS, protocol.frame(protocol.build_status()))
            if status.ok:
                results.record_status(job.server, status)
    if job.kind != Kind.REGISTER and answer.code == "busy":
        raise RemoteError(answer.error or "busy", code="busy")
    is_gone = job.kind != Kind.REGISTER and answer.code == "not_registered"
    return None if answer.ok or is_gone else answer.error


def _request_of(job: ContainerJob) -> tuple[str, dict[str, Any]]:
    name = job.user.username
    if job.kind == Kind.REMOVE:
        return protocol.REMOVE, protocol.build_remove(name, purge=job.purge)
    if job.kind == Kind.SUSPEND:
        return protocol.SUSPEND, protocol.build_suspend(name)
    return protocol.REGISTER, protocol.build_register(name)


def _held(claim: _Claim) -> QuerySet[ContainerJob]:
    """The row, if it is still ours."""
    return ContainerJob.objects.filter(pk=claim.job.pk, state=State.RUNNING, lease_until=claim.lease)


def _postpone(claim: _Claim, error: Message) -> None:
    """A removal or suspension waits for a server that is away or busy: half as long as it has waited so far."""
    now = timezone.now()
    seconds = min(POSTPONE_MOST, max(POSTPONE_LEAST, (now - claim.job.created_at).total_seconds() / 2))
    _held(claim).update(
        state=State.QUEUED,
        attempts=0,  # counts only attempts in which the worker died
        lease_until=None,
        next_attempt=now + timedelta(seconds=seconds),
        error=error,
    )


@transaction.atomic
def _finish(claim: _Claim, error: Message | None) -> None:
    job = claim.job
    done = _held(claim).update(
        state=State.SUCCEEDED if error is None else State.FAILED,
        error=error,
        lease_until=None,
        finished_at=timezone.now(),
    )
    if done:
        detail = {"server": job.server.name} | ({"error": error.as_json()} if error is not None else {})
        verb = _AUDIT[job.kind][1 if error is None else 2]
        audit.record(actor=job.requested_by, verb=verb, object=job.user.username, detail=detail)
