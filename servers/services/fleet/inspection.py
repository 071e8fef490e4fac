"""Ask servers for their status: all when a worker starts, those without a recent push hourly, and any for a test."""

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
AGAIN = timedelta(minutes=5)  # after no answer
AT_ONCE = 50  # each may take remote.STATUS_SECONDS; a task has 300 seconds


def is_due() -> bool:
    return _due().exists()


def ask_all() -> None:
    """Make every server due that ever had keys: what the database says of them may be older than a restored backup."""
    ServerState.objects.filter(inspected_at__isnull=False).update(inspected_at=timezone.now() - 2 * EVERY)


def request(server: Server) -> bool:
    """Ask this server soon, as it has something to report; False if it was asked a moment ago."""
    now = timezone.now()
    rested = ServerState.objects.filter(pk=server.pk, server__enabled=True, inspected_at__lt=now - REST)
    if not rested.update(inspected_at=now - EVERY - REST):
        return False
    queue.enqueue(queue.INSPECT)
    return True


def inspect(*, actor: str) -> None:
    """Ask servers that are due; one that does not answer is due again after a while."""
    due = [server for server in _due().order_by("state__inspected_at", "pk")[:AT_ONCE] if _claim(server)]
    for report in revisions.ask(due):
        if report.fault is None:
            continue
        ServerState.objects.filter(pk=report.server.pk).update(inspected_at=timezone.now() - EVERY + AGAIN)
        if report.fault.offered:
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
