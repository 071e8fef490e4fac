"""Once an hour a server that nothing was pushed to is asked what it holds: what changed there does not stay hidden."""

from datetime import timedelta

from django.db.models import QuerySet
from django.utils import timezone

from servers.models import Server
from servers.services.fleet import servers
from servers.services.push import revisions

EVERY = timedelta(hours=1)
AT_ONCE = 50  # of which each may take hosts.STATUS_SECONDS; a task has 300 seconds


def is_due() -> bool:
    return _due().exists()


def inspect(*, actor: str) -> None:
    """Ask the servers that are due; one that does not answer is asked again an hour later."""
    mine = [server for server in _due().order_by("inspected_at", "pk")[:AT_ONCE] if _claim(server)]
    for told in revisions.ask(mine):
        if told.fault is not None:
            servers.record_offered_key(actor=actor, server=told.server, offered=told.fault.offered)


def _due() -> QuerySet[Server]:
    """Not those that never had any keys: nobody can be missing there."""
    return Server.objects.filter(enabled=True, inspected_at__lt=timezone.now() - EVERY)


def _claim(server: Server) -> int:
    return _due().filter(pk=server.pk).update(inspected_at=timezone.now())
