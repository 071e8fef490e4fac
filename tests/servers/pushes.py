"""Pushes as the worker records them, without a host: the test provides the answers."""

from collections.abc import Mapping
from datetime import timedelta

from django.utils import timezone

from accounts.services import keys
from servers import protocol
from servers.models import Push, Server, ServerState
from servers.protocol import Answer, Message, UserResult
from servers.services.push import results
from servers.services.push.results import Claim, Outcome

GOOD = UserResult("written", "written")
ACCOUNT = UserResult("written", "absent")
NOWHERE = UserResult("absent", "absent")


def claim(server: Server) -> Claim:
    """Claim this server as the worker does, at the current revision."""
    now = timezone.now()
    lease, revision = now + timedelta(minutes=1), keys.current_revision()
    before = Server.objects.get(pk=server.pk)
    ServerState.objects.filter(pk=server.pk).update(
        lease_until=lease,
        attempted_at=now,
        attempted_revision=revision,
        unconfirmed_first=before.state.unconfirmed_first or revision,
        unconfirmed_last=revision,
    )
    push = Push.objects.create(server=server, state="running", started_at=now, revision=revision)
    server.refresh_from_db()
    return Claim(before, push, lease, 1)


def answered(
    begun: Claim, users: Mapping[str, UserResult], *, whole: bool = True, register: str = "written"
) -> Outcome:
    """The outcome when the host has applied the revision that was current when the claim was made."""
    state = keys.current_state()
    revision = begun.push.revision
    digest = protocol.digest(protocol.plain(state.users))
    failed = any(result.failed for result in users.values()) or register == "failed"
    answer = Answer(
        ok=not failed,
        code="partial" if failed else "",
        revision=revision,
        digest=digest,
        users=users,
        register=register,
    )
    return results.evaluate(revision, digest, answer, whole=whole)


def record(begun: Claim, outcome: Outcome) -> Push | None:
    """The push; None if the claim has expired."""
    return next(iter(results.record_all([(begun, outcome)])), None)


def push(
    server: Server, users: Mapping[str, UserResult] | None = None, *, whole: bool = True, register: str = "written"
) -> Push:
    """A push of the current revision, answered and recorded."""
    begun = claim(server)
    push = record(begun, answered(begun, users or {}, whole=whole, register=register))
    assert push is not None
    server.refresh_from_db()
    return push


def fail(server: Server, detail: str = "no route to host", *, is_sent: bool = True) -> Push:
    """A push that got no answer."""
    begun = claim(server)
    error = Message("connection_failed", {"address": server.address, "port": server.ssh_port, "detail": detail})
    push = record(begun, Outcome(Push.State.FAILED, begun.push.revision, error=error, is_sent=is_sent))
    assert push is not None
    server.refresh_from_db()
    return push
