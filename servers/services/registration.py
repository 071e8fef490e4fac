"""Make a person's container on a server: an order in a row, carried out by the worker over SSH."""

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
from servers import holders, protocol
from servers.dialing import RemoteError
from servers.models import Registration, Server
from servers.remote import ask
from servers.services import hosts, pool, queue, recording

log = logging.getLogger(__name__)

THREADS = 10
SECONDS = 240.0  # one registration; the template is unpacked in it
PASS_SECONDS = 40.0
LEASE = timedelta(seconds=SECONDS + 20)
MAX_ATTEMPTS = 3
MAX_LOG = 64 * 1024
WRITE_EVERY = 0.5  # seconds between updates of the log, which a page reads meanwhile
State = Registration.State


class RegistrationRefused(Exception):
    """This order cannot be given; the message says what to do."""


@dataclass(frozen=True)
class _Claim:
    registration: Registration
    lease: datetime


class _Log:
    """Progress lines of the server, written to the row while they come."""

    def __init__(self, row: Registration, tell: Callable[[str], None] | None) -> None:
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
        Registration.objects.filter(pk=self._row.pk).update(log=self._text)


def request(*, actor: str, server: Server, user: User) -> Registration:
    """Order a container of `user` on `server`, or give the open order. Raises RegistrationRefused."""
    if not server.enabled:
        raise RegistrationRefused(f"{server.name} is disabled: enable it first.")
    if not user.is_active or not hasattr(user, "port"):
        raise RegistrationRefused(f"{user.username} has no port or is locked out: let this person sign in once.")
    with transaction.atomic():
        order, is_new = Registration.objects.get_or_create(
            server=server,
            user=user,
            state__in=[State.QUEUED, State.RUNNING],
            defaults={"requested_by": actor[:64], "state": State.QUEUED},
        )
        if is_new:
            audit.record(actor=actor, verb="container.requested", object=user.username, detail={"server": server.name})
        queue.soon(queue.REGISTER)
    return order


def run(*, only: Registration | None = None, tell: Callable[[str], None] | None = None) -> int:
    """Carry out the orders that wait (or `only` this one); gives how many were begun."""
    begun = 0

    def claim(room: int) -> list[_Claim]:
        nonlocal begun
        claimed = list(islice(iter(lambda: _claim(only), None), room))
        begun += len(claimed)
        return claimed

    pool.serve(
        claim,
        lambda job: _carry_out(job, tell),
        pending=lambda: False,
        threads=THREADS,
        seconds=PASS_SECONDS,
    )
    return begun


def recover() -> int:
    """Orders whose worker is gone wait again, or fail after MAX_ATTEMPTS. Gives how many wait now."""
    running = Registration.objects.filter(state=State.RUNNING)
    held = running.values_list("lease_holder", flat=True)
    gone = [holder for holder in set(held) if holders.is_gone(holder)]
    lost = running.filter(Q(lease_until__lt=timezone.now()) | Q(lease_holder__in=gone))
    words = f"The worker stopped {MAX_ATTEMPTS} times in the middle of it; see its log, then order it again."
    lost.filter(attempts__gte=MAX_ATTEMPTS).update(
        state=State.FAILED, finished_at=timezone.now(), lease_until=None, error=words
    )
    lost.update(state=State.QUEUED, lease_until=None)
    return Registration.objects.filter(state=State.QUEUED).count()


def _waiting(only: Registration | None) -> QuerySet[Registration]:
    waiting = Registration.objects.filter(state=State.QUEUED)
    return waiting if only is None else waiting.filter(pk=only.pk)


def _claim(only: Registration | None) -> _Claim | None:
    for row in _waiting(only).select_related("server", "user").order_by("pk")[:THREADS]:
        lease = timezone.now() + LEASE
        taken = _waiting(row).update(
            state=State.RUNNING,
            attempts=F("attempts") + 1,
            lease_until=lease,
            lease_holder=holders.me(),
            started_at=timezone.now(),
            log="",
        )
        if taken:
            return _Claim(row, lease)
    return None


def _carry_out(claim: _Claim, tell: Callable[[str], None] | None) -> None:
    row, lines = claim.registration, _Log(claim.registration, tell)
    try:
        error = _register(row, lines)
    except RemoteError as failure:
        error = failure.message
    except Exception:
        log.exception("The registration of %s failed in an unforeseen way.", row)
        error = "Internal error; see the worker's log."
    lines.flush()
    _finish(claim, error)


def _register(row: Registration, lines: _Log) -> str:
    """ "" if the container is there, else the reason. The server's containers are noted in either case."""
    server = row.server
    with hosts.connect(server, seconds=SECONDS) as host:
        framed = protocol.frame(protocol.build_register(row.user.username))
        answer = ask(host, protocol.REGISTER, framed, on_line=lines)
        with contextlib.suppress(RemoteError):  # the order itself is answered; a push tells the same later
            status = ask(host, protocol.STATUS, protocol.frame(protocol.build_status()))
            if status.ok:
                recording.note_status(server, status)
    return "" if answer.ok else f"{server.name}: {answer.message or answer.code}"


@transaction.atomic
def _finish(claim: _Claim, error: str) -> None:
    row = claim.registration
    mine = Registration.objects.filter(Q(lease_until=claim.lease), pk=row.pk, state=State.RUNNING)
    done = mine.update(
        state=State.FAILED if error else State.SUCCEEDED,
        error=error[:500],
        lease_until=None,
        finished_at=timezone.now(),
    )
    if done:
        audit.record(
            actor=row.requested_by,
            verb="container.registered" if not error else "container.failed",
            object=row.user.username,
            detail={"server": row.server.name} | ({"error": error[:300]} if error else {}),
        )
