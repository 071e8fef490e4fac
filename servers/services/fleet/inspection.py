"""Ask servers for their status: those without a recent push once an hour, and any when staff test it."""

from datetime import timedelta

from django.db.models import QuerySet
from django.utils import timezone

from servers.models import Server, ServerState
from servers.services import remote
from servers.services.push import results, revisions
from servers.services.worker import queue
from servers.ssh import host_keys
from servers.ssh.dial import RemoteError
from servers.ssh.host import scan_host_key

EVERY = timedelta(hours=1)
REST = timedelta(seconds=30)  # between two questions that a server asks for
TEST_SECONDS = 10.0
AT_ONCE = 50  # each may take remote.STATUS_SECONDS; a task has 300 seconds


def is_due() -> bool:
    return _due().exists()


def request(server: Server) -> bool:
    """Ask this server soon, as it has something to report; False if it was asked a moment ago."""
    now = timezone.now()
    rested = ServerState.objects.filter(pk=server.pk, server__enabled=True, inspected_at__lt=now - REST)
    if not rested.update(inspected_at=now - EVERY - REST):
        return False
    queue.enqueue(queue.INSPECT)
    return True


def inspect(*, actor: str) -> None:
    """Ask the servers that are due; one that does not answer is due again an hour later."""
    due = [server for server in _due().order_by("state__inspected_at", "pk")[:AT_ONCE] if _claim(server)]
    for report in revisions.ask(due):
        if report.fault is not None and report.fault.offered:
            results.record_offered_key(actor=actor, server=report.server, offered=report.fault.offered)


def _due() -> QuerySet[Server]:
    """Without servers that never had any keys: nobody can be missing there."""
    return Server.objects.in_service().filter(state__inspected_at__lt=timezone.now() - EVERY)


def _claim(server: Server) -> int:
    """A conditional update, so that only one worker asks a server."""
    state = server.state
    unclaimed = ServerState.objects.filter(pk=server.pk, inspected_at=state.inspected_at)
    return unclaimed.update(inspected_at=timezone.now())


def test(*, actor: str, server: Server) -> str:
    """One line about the server; stores its status, or a host key that it offers. Raises RemoteError."""
    if not server.host_key:
        offered = scan_host_key(server.address, server.ssh_port)
        results.record_offered_key(actor=actor, server=server, offered=offered)
        shown = host_keys.fingerprint(offered)
        raise RemoteError(
            "host_key_offered", code="host_key_unknown", permanent=True, offered=offered, fingerprint=shown
        )
    try:
        answer = remote.status(server, seconds=TEST_SECONDS)
    except RemoteError as error:
        if error.offered:
            results.record_offered_key(actor=actor, server=server, offered=error.offered)
        raise
    results.record_status(server, answer)
    return (
        f"{server.name}: answers as {answer.name or 'nobody'}, host programs {answer.labhost or '?'}, "
        f"revision {answer.revision}, {len(answer.containers)} containers."
    )
