"""Which revision do the servers hold, and is the portal's above it? After restoring a backup it may not be."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.services import audit, keys, revision
from servers import protocol
from servers.models import Server
from servers.protocol import Answer
from servers.services import remote
from servers.services.push import results
from servers.ssh.dial import RemoteError

THREADS = 10


@dataclass(frozen=True)
class Told:
    """What one server answered; `answer` is None if it could not be asked, and `fault` says why."""

    server: Server
    answer: Answer | None
    fault: RemoteError | None = None


def ahead() -> QuerySet[Server]:
    """Servers in service that hold, as far as is known, something newer than what the portal has."""
    current = keys.current_revision()
    newer = Q(ahead_since__isnull=False) | Q(reported_revision__gt=current) | Q(applied_revision__gt=current)
    return Server.objects.filter(newer, enabled=True)


def ask(servers: Collection[Server]) -> list[Told]:
    """Ask them all, at most THREADS at once; what they say is noted on their rows."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="ask") as threads:
        told = list(threads.map(_ask, servers))
    for one in told:
        if one.answer is not None:
            results.record_status(one.server, one.answer)
    return told


def newer(told: Collection[Told]) -> list[Told]:
    """Those that would refuse what the portal has now: a higher revision, or the same with other keys."""
    state = keys.current_state()
    digest = protocol.digest(protocol.plain(state.users))
    return [
        one
        for one in told
        if one.answer is not None
        and (one.answer.revision, one.answer.digest) != (state.revision, digest)
        and one.answer.revision >= max(state.revision, 1)
    ]


@transaction.atomic
def raise_revision(*, actor: str, told: Collection[Told]) -> int:
    """Put the portal's revision above that of all these servers, so that they take its keys. Gives the new one."""
    before = revision.lock()
    held = {one.server.name: one.answer.revision for one in told if one.answer is not None}
    number = revision.raise_to(max(held.values()) + 1)
    Server.objects.filter(pk__in=[one.server.pk for one in told]).update(next_attempt=timezone.now(), attempts=0)
    audit.record(
        actor=actor,
        verb="revision.raised",
        object="portal",
        detail={"before": before, "now": number, "held": held},
    )
    return number


def _ask(server: Server) -> Told:
    try:
        return Told(server, remote.status(server))
    except RemoteError as error:
        return Told(server, None, error)
