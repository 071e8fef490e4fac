"""Which keys servers should hold, compared with what each server confirmed; read in a few queries for many keys."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from accounts.models import KeyRange, SSHKey, wanted_between
from servers import messages
from servers.models import Confirmation, HandRevocation, Placement, Server, ServerState
from servers.protocol import Message
from servers.services.worker import heartbeat

COLUMNS = 100  # revisions that one query reads


@dataclass
class Snapshot:
    """What is known of some keys on some servers. `confirmed`: when a server first held a revision or a later one."""

    ranges: dict[int, list[KeyRange]] = field(default_factory=dict)
    placements: dict[tuple[int, int], Placement] = field(default_factory=dict)
    confirmed: dict[tuple[int, int], datetime] = field(default_factory=dict)
    revoked: set[tuple[int, int]] = field(default_factory=set)  # server and key: by hand, not given back
    is_worker_silent: bool = False
    now: datetime = field(default_factory=timezone.now)

    def last_range(self, key: SSHKey) -> KeyRange | None:
        return next(reversed(self.ranges.get(key.pk, [])), None)

    def may_hold(self, server: Server, key: SSHKey) -> bool:
        """Whether the server confirmed the key, or was sent it without confirming anything since."""
        spans = server.state.possible_revisions()
        return any(one.covers(*span) for one in self.ranges.get(key.pk, []) for span in spans)

    def delay(self, server: Server) -> tuple[str, datetime | None]:
        """Why a server does not have the latest revision yet, and since when."""
        state = server.state
        if not server.enabled:
            return "it is out of service", None
        if state.ahead_since:
            return messages.phrase(state.last_error or Message("server_ahead"), "person"), state.ahead_since
        if state.last_error:
            return messages.phrase(state.last_error, "person"), state.behind_since
        if self.is_worker_silent:
            return "the portal's worker does not respond", None
        if state.lease_until is not None and state.lease_until > self.now:
            return "a push is running", state.attempted_at
        return "waiting for the next push", state.behind_since


def missing(held: Any) -> Q:
    """Of key ranges: those that a server which holds the revision `held` lacks."""
    return Q(until__isnull=True, start__gt=held)


def leftover(held: Any, first: Any, last: Any) -> Q:
    """Of key ranges: those that ended and whose keys a server may still accept; arguments as in ServerState."""
    return Q(until__isnull=False) & (wanted_between(held, held) | wanted_between(first, last))


def removed_keys(servers: Iterable[Server]) -> QuerySet[SSHKey]:
    """Keys that are not wanted any more and that one of these servers may still accept."""
    servers = list(servers)
    somewhere = Q(pk__in=[])
    for held, *unconfirmed in {tuple(server.state.possible_revisions()) for server in servers}:
        somewhere |= leftover(held[0], *(unconfirmed[0] if unconfirmed else held))
    ranges = KeyRange.objects.filter(somewhere)
    failing = Placement.objects.failed().filter(server__in=servers)
    unwanted = SSHKey.objects.exclude(pk__in=KeyRange.objects.open().values("key"))
    return unwanted.filter(Q(pk__in=ranges.values("key")) | Q(user__in=failing.values("user")))


def late_keys(server: Server) -> QuerySet[SSHKey]:
    """Keys that this server lacks or may still have to remove, and those of people whose files it could not write."""
    if not server.enabled:
        return removed_keys([server])
    lacking = KeyRange.objects.filter(missing(server.state.held_revision)).values("key")
    failing = Placement.objects.failed().filter(server=server).values("user")
    late = Q(pk__in=lacking) | Q(pk__in=SSHKey.objects.wanted().filter(user__in=failing).values("pk"))
    return SSHKey.objects.filter(late | Q(pk__in=removed_keys([server]).values("pk")))


def load(keys: Sequence[SSHKey], servers: Sequence[Server], *, with_times: bool = True) -> Snapshot:
    """All that the state of these keys on these servers is derived from; without times no `confirmed`."""
    found = Snapshot(is_worker_silent=heartbeat.is_silent())
    for row in Placement.objects.filter(user__in={key.user_id for key in keys}, server__in=servers):
        found.placements[row.server_id, row.user_id] = row
    for one in KeyRange.objects.filter(key__in=[key.pk for key in keys]).order_by("start"):
        found.ranges.setdefault(one.key_id, []).append(one)
    listed = HandRevocation.objects.filter(key__in=[key.pk for key in keys], is_listed=True)
    found.revoked = set(listed.exclude(state=HandRevocation.State.KEPT).values_list("server", "key"))
    if with_times:
        last = [one[-1] for one in found.ranges.values()]
        found.confirmed = _confirmed(servers, sorted({one.until or one.start for one in last}))
    return found


def _confirmed(servers: Sequence[Server], revisions: Sequence[int]) -> dict[tuple[int, int], datetime]:
    found: dict[tuple[int, int], datetime] = {}
    later = Confirmation.objects.filter(server=OuterRef("pk")).order_by("revision")
    for begin in range(0, len(revisions), COLUMNS):
        some = revisions[begin : begin + COLUMNS]
        columns = {
            f"at_{number}": Subquery(later.filter(revision__gte=number).values("confirmed_at")[:1]) for number in some
        }
        rows = ServerState.objects.filter(pk__in=[server.pk for server in servers])
        for pk, *moments in rows.annotate(**columns).values_list("pk", *columns):
            found |= {(pk, number): at for number, at in zip(some, moments, strict=True) if at is not None}
    return found
