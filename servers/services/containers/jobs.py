"""Jobs that register, suspend or remove a person's container: rows, run by the worker over SSH."""

import contextlib
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import islice
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from accounts.models import User
from accounts.services import audit, keys
from servers import protocol
from servers.models import Container, ContainerJob, Server
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
SUSPEND_AGAIN = timedelta(hours=1)  # until a lost suspension is queued again
State, Kind = ContainerJob.State, ContainerJob.Kind

# The audit verbs of each kind: requested, succeeded, failed.
_AUDIT: dict[str, tuple[str, str, str]] = {
    Kind.REGISTER: ("container.registration_requested", "container.registered", "container.registration_failed"),
    Kind.REMOVE: ("container.removal_requested", "container.removed", "container.removal_failed"),
    Kind.SUSPEND: ("container.suspension_requested", "container.suspended", "container.suspension_failed"),
}


class JobRefused(Exception):
    """The job cannot be queued; the text says what to do."""


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
    return enqueue(actor=actor, server=server, user=user, kind=Kind.REGISTER)


def request_removal(*, actor: str, server: Server, user: User, purge: bool = False) -> ContainerJob:
    """Queue a job that removes the container (with `purge`, the files), or return the open one. Raises JobRefused."""
    return enqueue(actor=actor, server=server, user=user, kind=Kind.REMOVE, purge=purge)


def suspend_everywhere(*, actor: str, user: User) -> list[ContainerJob]:
    """Queue a suspension wherever this person has a container, also out of service; cancel queued registrations."""
    fail(ContainerJob.objects.filter(user=user, state=State.QUEUED, kind=Kind.REGISTER), Message("locked_out"))
    queued = []
    for container in Container.objects.filter(user=user).select_related("server"):
        try:
            queued.append(enqueue(actor=actor, server=container.server, user=user, kind=Kind.SUSPEND))
        except JobRefused as refused:
            log.warning("%s", refused)  # it is already being removed
    return queued


def recover_suspensions(*, actor: str) -> int:
    """Suspend people who are locked out and whose container runs, unless a job is recent. Returns how many jobs."""
    recent = timezone.now() - SUSPEND_AGAIN
    count = 0
    for row in Container.objects.filter(user__is_active=False, state=Container.State.RUNNING):
        known = ContainerJob.objects.filter(server=row.server_id, user=row.user_id, kind=Kind.SUSPEND)
        if not known.filter(created_at__gt=recent).exists():
            count += len(suspend_everywhere(actor=actor, user=row.user))
    return count


@transaction.atomic
def enqueue(*, actor: str, server: Server, user: User, kind: str, purge: bool = False) -> ContainerJob:
    """The open job of this kind, created if there is none. Raises JobRefused if another kind is open."""
    if kind != Kind.SUSPEND and not server.enabled:
        raise JobRefused(f"{server.name} is out of service. Take it into service first.")
    new = {"requested_by": actor[:64], "state": State.QUEUED, "kind": kind, "purge": purge}
    unfinished = ContainerJob.objects.filter(state__in=[State.QUEUED, State.RUNNING])
    job, is_new = unfinished.get_or_create(server=server, user=user, defaults=new)
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

    def claim(room: int) -> list[ContainerJob]:
        nonlocal started
        most = room if only is None else 1 - started  # a postponed job is not retried at once
        claimed = list(islice(iter(lambda: _claim(only), None), most))
        started += len(claimed)
        return claimed

    thread_pool.serve(claim, lambda job: _run(job, report), threads=THREADS, seconds=PASS_SECONDS)
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


def _claim(only: ContainerJob | None) -> ContainerJob | None:
    for job in _due(only).select_related("server__state", "user").order_by("pk")[:THREADS]:
        now = timezone.now()
        job.lease_until = now + LEASE
        lease = {"lease_until": job.lease_until, "lease_holder": lease_holder.current()}
        attempts = F("attempts") + 1
        if _due(job).update(state=State.RUNNING, attempts=attempts, started_at=now, log="", **lease):
            return job
    return None


def _run(job: ContainerJob, report: Callable[[str], None] | None) -> None:
    progress = _Log(job, report)
    try:
        error = _ask(job, progress)
    except RemoteError as failure:
        error = failure.message
        if job.kind != Kind.REGISTER and not failure.permanent:
            progress.flush()
            _postpone(job, error)
            return
    except Exception:
        log.exception("The job failed unexpectedly: %s", job)
        error = Message("internal_error")
    progress.flush()
    _finish(job, error)


def _ask(job: ContainerJob, progress: _Log) -> Message | None:
    """Have the server do it, then record its containers. Returns why it failed, or None. Raises RemoteError."""
    fields: dict[str, Any] = {"user": job.user.username}
    if job.kind == Kind.REMOVE:
        fields["purge"] = job.purge
    if job.kind == Kind.SUSPEND:
        fields["revision"] = keys.current_revision()  # read first: an unlock has a later one
        if _is_unlocked(job):
            return Message("unlocked_meanwhile", {"name": job.user.username})
    with remote.connect(job.server, seconds=SECONDS) as host:
        answer = ask(host, job.kind, on_line=progress, **fields)
        if job.kind == Kind.SUSPEND:
            _is_unlocked(job)
        with contextlib.suppress(RemoteError):  # the job itself is answered; the next push reports the same
            status = ask(host, protocol.STATUS)
            if status.ok:
                results.record_status(job.server, status)
    if job.kind != Kind.REGISTER and answer.code == "busy":
        raise RemoteError(answer.error or "busy", code="busy")
    is_gone = job.kind != Kind.REGISTER and answer.code == "not_registered"
    return None if answer.ok or is_gone else answer.error


def _is_unlocked(job: ContainerJob) -> bool:
    """Whether the person to suspend is active again: then a later revision ends what was suspended already."""
    if not User.objects.filter(pk=job.user_id, is_active=True).exists():
        return False
    keys.push_again(user=job.user)
    return True


def _held(job: ContainerJob) -> QuerySet[ContainerJob]:
    """The row, if it is still ours."""
    return ContainerJob.objects.filter(pk=job.pk, state=State.RUNNING, lease_until=job.lease_until)


def _postpone(job: ContainerJob, error: Message) -> None:
    """A removal or suspension waits for a server that is away or busy: half as long as it has waited so far."""
    now = timezone.now()
    seconds = min(POSTPONE_MOST, max(POSTPONE_LEAST, (now - job.created_at).total_seconds() / 2))
    # attempts: counts only those in which the worker died
    queued = {"state": State.QUEUED, "attempts": 0, "next_attempt": now + timedelta(seconds=seconds)}
    _held(job).update(**queued, lease_until=None, error=error)


@transaction.atomic
def _finish(job: ContainerJob, error: Message | None) -> None:
    state = State.SUCCEEDED if error is None else State.FAILED
    if _held(job).update(state=state, error=error, lease_until=None, finished_at=timezone.now()):
        detail = {"server": job.server.name} | ({"error": error.as_json()} if error is not None else {})
        verb = _AUDIT[job.kind][1 if error is None else 2]
        audit.record(actor=job.requested_by, verb=verb, object=job.user.username, detail=detail)
