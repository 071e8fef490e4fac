"""Where each key is live: server by server and place by place, since when, and why not yet.

Derived from what servers have confirmed, never from what was sent. A removed key is `leaving` a server until
that server has confirmed a revision without it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from django.utils import timezone

from accounts.models import SSHKey
from servers import messages
from servers.models import Placement, Server
from servers.services.status import key_ranges
from servers.services.status.key_ranges import Facts, Span

HOST, CONTAINER, REGISTER = "host account", "container", "register"
NO_ACCOUNT = {HOST: "no account there yet", CONTAINER: "no container there yet", REGISTER: "no register there"}
BATCH = 1000  # keys that are looked at together when all are asked for


class State(StrEnum):
    LIVE = "live"
    WAITING = "waiting"
    ABSENT = "absent"  # there is nothing there to put it into
    LEAVING = "leaving"  # removed, and still accepted there as far as anybody knows
    GONE = "gone"


PARTS = re.compile(r"([0-9]+)", re.ASCII)
FEW = 3  # servers are named, more are counted
OPEN = (State.WAITING, State.LEAVING)


@dataclass(frozen=True)
class Place:
    """One key file on one server. `since` is when this state began, None if nobody noted it."""

    name: str
    state: State
    since: datetime | None = None
    reason: str = ""


@dataclass(frozen=True)
class KeyOnServer:
    """One key on one server: the worst of its places counts."""

    server: Server
    places: tuple[Place, ...]

    @cached_property
    def decisive(self) -> Place:
        for state in (State.LEAVING, State.WAITING, State.LIVE, State.GONE):
            found = [place for place in self.places if place.state == state]
            if found:
                return max(found, key=lambda place: place.since.timestamp() if place.since else 0.0)
        return self.places[-1]

    @property
    def state(self) -> State:
        return self.decisive.state

    @property
    def since(self) -> datetime | None:
        return self.decisive.since

    @property
    def reason(self) -> str:
        return self.decisive.reason

    @property
    def next_try(self) -> datetime | None:
        return self.server.next_attempt if self.state in OPEN and self.server.enabled else None

    @property
    def words(self) -> str:
        """`gpu9: no route, since 10:02, next try 10:06`: one line for people."""
        still = "still live there until it answers: " if self.state == State.LEAVING else ""
        words = f"{self.server.name}: {still}{self.reason or self.state}"
        if self.since is not None:
            words += f", since {format_time(self.since)}"
        if self.next_try is not None:
            words += f", next try {format_time(self.next_try)}"
        return words


@dataclass(frozen=True)
class KeyStatus:
    key: SSHKey
    is_wanted: bool
    servers: tuple[KeyOnServer, ...]

    @property
    def live(self) -> int:
        return sum(1 for one in self.servers if one.state == State.LIVE)

    @property
    def total(self) -> int:
        return len(self.servers)

    @cached_property
    def open(self) -> list[KeyOnServer]:
        """Where something waits still, or is to leave."""
        return [one for one in self.servers if one.state in OPEN]

    @property
    def elsewhere(self) -> list[KeyOnServer]:
        """The servers on which it is not live (a removed one: not gone)."""
        good = (State.LIVE,) if self.is_wanted else (State.GONE, State.ABSENT)
        return [one for one in self.servers if one.state not in good]

    @property
    def words(self) -> str:
        if self.is_wanted:
            return f"live on {self.live} of {count_servers(self.total)}"
        if not self.elsewhere:
            return "removed everywhere"
        names = [one.server.name for one in self.elsewhere]
        return f"removed, but still live on {', '.join(names) if len(names) <= FEW else count_servers(len(names))}"


def status_of(keys: Sequence[SSHKey], *, servers: Sequence[Server] | None = None) -> list[KeyStatus]:
    """The state of these keys (with their `user` loaded) on all servers in service, in their order.

    A constant number of queries, plus one for each hundred keys. Servers out of service appear only where a
    removed key is still in their files.
    """
    known = sorted_by_name(Server.objects.all() if servers is None else servers)
    told = key_ranges.load(keys, known)
    return [_status(key, known, told) for key in keys]


def all_statuses(*, servers: Sequence[Server] | None = None) -> Iterator[KeyStatus]:
    """The same of all active keys, then of removed ones that may still be somewhere; a batch at a time.

    Since when something waits is told, since when it is live is not: that would be the most of the work.
    """
    known = sorted_by_name(Server.objects.all() if servers is None else servers)
    for rows in (key_ranges.active_keys(), key_ranges.leaving_keys(known)):
        for batch in _batches(rows.select_related("user").order_by("user__username", "pk").iterator(BATCH)):
            told = key_ranges.load(batch, known, with_times=False)
            yield from (_status(key, known, told) for key in batch)


def pending_on(server: Server, most: int) -> list[tuple[SSHKey, KeyOnServer]]:
    """The first `most` keys that wait on this server, or are to leave it."""
    late = key_ranges.late_keys(server).select_related("user").order_by("user__username", "pk")
    return [(status.key, one) for status in status_of(list(late[:most]), servers=[server]) for one in status.open]


def sorted_by_name(servers: Iterable[Server]) -> list[Server]:
    """gpu2 before gpu10."""
    return sorted(servers, key=lambda server: _natural(server.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """Text and numbers by turns, each comparable with each."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in PARTS.split(name) if part]


def count_servers(count: int) -> str:
    return f"{count} server" if count == 1 else f"{count} servers"


def format_time(moment: datetime) -> str:
    local, now = timezone.localtime(moment), timezone.localtime()
    return f"{local:%H:%M:%S}" if local.date() == now.date() else f"{local.day} {local:%b %H:%M}"


def _batches(rows: Iterable[SSHKey]) -> Iterator[list[SSHKey]]:
    batch: list[SSHKey] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _status(key: SSHKey, servers: Sequence[Server], told: Facts) -> KeyStatus:
    span = told.span(key)
    found = []
    for server in servers:
        row = told.placements.get((server.pk, key.user_id))
        if span.until is None:
            if server.enabled:
                found.append(KeyOnServer(server, _wanted(server, row, span, told)))
        else:
            one = KeyOnServer(server, _unwanted(server, row, span, span.until, told))
            if server.enabled or one.state == State.LEAVING:
                found.append(one)
    return KeyStatus(key, span.until is None, tuple(found))


def _wanted(server: Server, row: Placement | None, span: Span, told: Facts) -> tuple[Place, ...]:
    """The three places of a key that should be there."""
    reason, since = "", None
    confirmed = told.first(server, span.start)
    if span.hindrance or not key_ranges.holds(server, span.start):
        reason, since = (span.hindrance, None) if span.hindrance else told.why(server, span.start)

    def place(name: str, outcome: str, began: datetime | None, error: str) -> Place:
        if outcome == Placement.State.ABSENT:
            return Place(name, State.ABSENT, None, NO_ACCOUNT[name])
        if reason:
            return Place(name, State.WAITING, since, reason)
        if outcome == Placement.State.FAILED:
            return Place(name, State.WAITING, began, error)
        return Place(name, State.LIVE, max((at for at in (confirmed, began) if at is not None), default=None))

    return tuple(place(*file) for file in _files(server, row))


def _unwanted(server: Server, row: Placement | None, span: Span, until: int, told: Facts) -> tuple[Place, ...]:
    """The three places of a key that was removed with the revision `until`."""
    left, at = key_ranges.holds(server, until), told.first(server, until)
    never = not left and not key_ranges.may_hold(server, span.start)
    reason, since = told.why(server, until)

    def place(name: str, outcome: str, began: datetime | None, error: str) -> Place:
        if outcome == Placement.State.ABSENT:
            return Place(name, State.ABSENT, None, NO_ACCOUNT[name])
        if never:
            return Place(name, State.GONE, None, "it was never there")
        if not left:
            return Place(name, State.LEAVING, since, reason)
        if outcome == Placement.State.FAILED and (row is None or row.kept_revision < until):
            return Place(name, State.LEAVING, began, error)
        return Place(name, State.GONE, at)

    return tuple(place(*file) for file in _files(server, row))


def _files(server: Server, row: Placement | None) -> Iterator[tuple[str, str, datetime | None, str]]:
    """Of each key file: place, what the server said of it, since when, and its error."""
    absent = Placement.State.ABSENT
    error = messages.phrase(row.error if row else None, "person")
    yield (HOST, row.host, row.host_since, error) if row else (HOST, absent, None, "")
    yield (CONTAINER, row.container, row.container_since, error) if row else (CONTAINER, absent, None, "")
    if row is not None and row.host == row.container == Placement.State.FAILED:
        # her entry as a whole may have been refused: then her line in register's file is the old one
        yield REGISTER, Placement.State.FAILED, row.host_since, error
    else:
        outcome = server.register_outcome or Placement.State.GOOD
        yield REGISTER, outcome, server.register_since, "register's key file could not be written"
