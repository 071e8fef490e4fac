"""What is known of keys and servers, read in a few queries for many of them at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from accounts.models import AuditEvent, Port, SSHKey
from accounts.services import keys as key_service
from servers import messages
from servers.models import Confirmation, Placement, Server
from servers.services.worker import heartbeat

COLUMNS = 100  # revisions that one query asks for
LOCKED, LET_IN, NUMBERED = "person.locked_out", "person.let_in", "numbers.issued"


@dataclass(frozen=True)
class Span:
    """The revisions with which a key came and went; `hindrance` is why no server is sent it."""

    start: int
    until: int | None = None
    hindrance: str = ""


@dataclass
class Facts:
    placements: dict[tuple[int, int], Placement] = field(default_factory=dict)
    firsts: dict[tuple[int, int], datetime] = field(default_factory=dict)
    spans: dict[int, Span] = field(default_factory=dict)
    is_worker_silent: bool = False
    now: datetime = field(default_factory=timezone.now)

    def span(self, key: SSHKey) -> Span:
        return self.spans[key.pk]

    def first(self, server: Server, revision: int) -> datetime | None:
        """When the server first confirmed this revision or a later one."""
        return self.firsts.get((server.pk, revision))

    def why(self, server: Server, revision: int) -> tuple[str, datetime | None]:
        """Why a server does not hold this revision yet, and since when it is so."""
        if not server.enabled:
            return "it is out of service", None
        if server.last_error:
            return messages.phrase(server.last_error, "person"), server.behind_since
        if self.is_worker_silent:
            return "the portal's worker does not answer", None
        if server.lease_until is not None and server.lease_until > self.now:
            return "it is being told now", server.attempted_at
        return "it is told within seconds", server.behind_since


def holds(server: Server, revision: int) -> bool:
    """Whether the server has confirmed this revision or a later one."""
    return bool(server.applied_digest) and server.applied_revision >= revision


def may_hold(server: Server, revision: int) -> bool:
    """Whether something of this revision was ever on its way to it."""
    return holds(server, revision) or server.attempted_revision >= revision or server.lease_until is not None


def active_keys() -> QuerySet[SSHKey]:
    return SSHKey.objects.filter(revoked_revision__isnull=True)


def leaving_keys(servers: Sequence[Server]) -> QuerySet[SSHKey]:
    """Removed keys that one of these servers may still accept; more than needed, never less."""
    failing = Placement.objects.filter(server__in=servers).filter(Q(host="failed") | Q(container="failed"))
    somewhere = Q(user__in=failing.values("user"))
    for held, tried in {(one.applied_revision, one.attempted_revision) for one in servers}:
        somewhere |= Q(revoked_revision__gt=held, added_revision__lte=max(held, tried))
    return SSHKey.objects.filter(somewhere, revoked_revision__isnull=False)


def late_keys(server: Server) -> QuerySet[SSHKey]:
    """Keys that came or went since what this server has confirmed, and those of people that it could not serve."""
    failing = Placement.objects.filter(server=server).filter(Q(host="failed") | Q(container="failed"))
    late = Q(added_revision__gt=server.applied_revision) | Q(user__in=failing.values("user"))
    wanted = active_keys().filter(late) if server.enabled else active_keys().none()
    return wanted | leaving_keys([server])


def load(keys: Sequence[SSHKey], servers: Sequence[Server], *, with_times: bool = True) -> Facts:
    """All that the state of these keys on these servers is derived from; without times, not since when."""
    people = {key.user_id: key.user for key in keys}
    told = Facts(is_worker_silent=heartbeat.is_silent())
    for row in Placement.objects.filter(user__in=people, server__in=servers):
        told.placements[row.server_id, row.user_id] = row
    turns = _turns([user.username for user in people.values()])
    numbered = set(Port.objects.filter(user__in=people).values_list("user_id", flat=True))
    current = key_service.current_revision()
    for key in keys:
        told.spans[key.pk] = _span(key, turns, key.user_id in numbered, current)
    wanted = {span.start if span.until is None else span.until for span in told.spans.values()}
    told.firsts = _firsts(servers, sorted(wanted)) if with_times else {}
    return told


def _span(key: SSHKey, turns: dict[tuple[str, str], int], has_port: bool, current: int) -> Span:
    """A key of somebody who was locked out came back with her, and one that waited for a port went with the port."""
    name = key.user.username
    if key.revoked_revision is not None:
        return Span(key.added_revision, key.revoked_revision)
    if not key.user.is_active:
        return Span(key.added_revision, turns.get((name, LOCKED), current))
    start = max(key.added_revision, turns.get((name, LET_IN), 0), turns.get((name, NUMBERED), 0))
    return Span(start, None, "" if has_port else "this account has no port: sign in through the directory once")


def _turns(names: Sequence[str]) -> dict[tuple[str, str], int]:
    """The revisions at which each person was last locked out, let in again, and given a port while having keys."""
    rows = AuditEvent.objects.filter(verb__in=[LOCKED, LET_IN, NUMBERED], object__in=names).order_by("pk")
    return {
        (name, verb): detail.get("revision", 0) for name, verb, detail in rows.values_list("object", "verb", "detail")
    }


def _firsts(servers: Sequence[Server], revisions: Sequence[int]) -> dict[tuple[int, int], datetime]:
    found: dict[tuple[int, int], datetime] = {}
    later = Confirmation.objects.filter(server=OuterRef("pk")).order_by("revision")
    for begin in range(0, len(revisions), COLUMNS):
        some = revisions[begin : begin + COLUMNS]
        columns = {
            f"at_{number}": Subquery(later.filter(revision__gte=number).values("confirmed_at")[:1]) for number in some
        }
        rows = Server.objects.filter(pk__in=[server.pk for server in servers]).order_by()
        for pk, *moments in rows.annotate(**columns).values_list("pk", *columns):
            found |= {(pk, number): at for number, at in zip(some, moments, strict=True) if at is not None}
    return found
