"""Servers ahead of the database, as after restoring a backup: find them, and raise the portal's revision."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.services import audit, keys, revision
from servers import protocol
from servers.models import Server, ServerState
from servers.protocol import Answer
from servers.services import remote
from servers.services.push import results
from servers.ssh.dial import RemoteError

THREADS = 10


@dataclass(frozen=True)
class Report:
    """A server's answer; None if it did not answer, and `fault` says why."""

    server: Server
    answer: Answer | None
    fault: RemoteError | None = None


def ahead() -> QuerySet[Server]:
    """Servers in service that, as far as is known, hold a newer revision than the portal."""
    current = keys.current_revision()
    newer = Q(state__reported_revision__gt=current) | Q(state__applied_revision__gt=current)
    return Server.objects.in_service().filter(newer | Q(state__ahead_since__isnull=False))


def ask(servers: Collection[Server]) -> list[Report]:
    """Ask these servers for their status, at most THREADS at once, and store the answers."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="ask") as threads:
        reports = list(threads.map(_ask, servers))
    for one in reports:
        if one.answer is not None:
            results.record_status(one.server, one.answer)
    return reports


def newer(reports: Collection[Report]) -> list[Report]:
    """Servers that would refuse the portal's keys: they hold a higher revision, or the same with other keys."""
    state = keys.current_state()
    digest = protocol.digest(protocol.plain(state.users))
    answers = [(one, one.answer) for one in reports if one.answer is not None]
    other = [(one, answer) for one, answer in answers if (answer.revision, answer.digest) != (state.revision, digest)]
    return [one for one, answer in other if answer.revision >= max(state.revision, 1)]


@transaction.atomic
def raise_revision(*, actor: str, reports: Collection[Report]) -> int:
    """Raise the portal's revision above that of all these servers, so that they accept its keys; return it."""
    before = revision.lock()
    held = {one.server.name: one.answer.revision for one in reports if one.answer is not None}
    number = revision.raise_to(max(held.values()) + 1)
    states = ServerState.objects.filter(pk__in=[one.server.pk for one in reports])
    states.update(next_attempt=timezone.now(), attempts=0)
    detail = {"before": before, "now": number, "held": held}
    audit.record(actor=actor, verb="revision.raised", object="portal", detail=detail)
    return number


def _ask(server: Server) -> Report:
    try:
        return Report(server, remote.status(server))
    except RemoteError as error:
        return Report(server, None, error)
