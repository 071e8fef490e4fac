"""Ask servers without a recent push for their status once an hour, to notice changes made there."""

from datetime import timedelta

from django.db.models import QuerySet
from django.utils import timezone

from servers.models import Server, ServerState
from servers.services.fleet import servers
from servers.services.push import revisions

EVERY = timedelta(hours=1)
AT_ONCE = 50  # each may take remote.STATUS_SECONDS; a task has 300 seconds


def is_due() -> bool:
    return _due().exists()


def inspect(*, actor: str) -> None:
    """Ask the servers that are due; one that does not answer is due again an hour later."""
    due = [server for server in _due().order_by("state__inspected_at", "pk")[:AT_ONCE] if _claim(server)]
    for report in revisions.ask(due):
        if report.fault is not None:
            servers.record_offered_key(actor=actor, server=report.server, offered=report.fault.offered)


def _due() -> QuerySet[Server]:
    """Without servers that never had any keys: nobody can be missing there."""
    return Server.objects.in_service().filter(state__inspected_at__lt=timezone.now() - EVERY)


def _claim(server: Server) -> int:
    """A conditional update, so that only one worker asks a server."""
    state = server.state
    unclaimed = ServerState.objects.filter(pk=server.pk, inspected_at=state.inspected_at)
    return unclaimed.update(inspected_at=timezone.now())
