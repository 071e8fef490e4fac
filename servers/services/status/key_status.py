"""The state of each key on each server and in each of its key files: since when, and why.

Derived from what servers have confirmed, never from what was sent. A removed key is `removing` on a server until
that server has confirmed a revision without it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from django.utils import timezone

from accounts.models import KeyRange, SSHKey
from servers import messages
from servers.models import Placement, Server
from servers.services.status import key_ranges
from servers.services.status.key_ranges import Snapshot

HOST, CONTAINER, REGISTER = "host account", "container", "register"
NO_ACCOUNT = {HOST: "no account there yet", CONTAINER: "no container there yet", REGISTER: "no register there"}
BATCH = 1000  # keys that are loaded together when all are read


class State(StrEnum):
    LIVE = "live"
    PENDING = "pending"  # the server has not confirmed it yet
    FAILED = "failed"  # the server could not write the key file
    NOT_REGISTERED = "not registered"  # no account there; the person can register with the key
    REMOVING = "removing"  # removed at the portal, and perhaps still accepted there
    REMOVED = "removed"


PARTS = re.compile(r"([0-9]+)", re.ASCII)
MAX_NAMES = 3  # servers are named, more are counted
UNFINISHED = (State.PENDING, State.FAILED, State.REMOVING)
USABLE = (State.LIVE, State.NOT_REGISTERED)  # on the server, or at its `register` account
PRECEDENCE = (State.REMOVING, State.FAILED, State.PENDING, State.LIVE, State.REMOVED, State.NOT_REGISTERED)


@dataclass(frozen=True)
class Place:
    """One key file on one server. `since`: when this state began, None if that is unknown."""

    name: str
    state: State
    since: datetime | None = None
    reason: str = ""


@dataclass(frozen=True)
class KeyOnServer:
    """A key on a server. Its state is that of the key file that is furthest from where it should be."""

    server: Server
    places: tuple[Place, ...]

    @cached_property
    def decisive(self) -> Place:
        place = worst(self.places)
        if place.state == State.LIVE and all(one.state != State.LIVE or one.name == REGISTER for one in self.places):
            return Place(HOST, State.NOT_REGISTERED, None, NO_ACCOUNT[HOST])
        return place

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
    def next_retry(self) -> datetime | None:
        return next_retry(self.server, self.state)

    @property
    def summary(self) -> str:
        return describe(self.server, self.state, self.reason, self.since)


def worst(places: Sequence[Place]) -> Place:
    """The place that is furthest from where it should be; of several, the one that changed last."""
    first = min(PRECEDENCE.index(place.state) for place in places)
    found = [place for place in places if place.state == PRECEDENCE[first]]
    return max(found, key=lambda place: place.since.timestamp() if place.since else 0.0)


def next_retry(server: Server, state: str) -> datetime | None:
    return server.state.next_attempt if state in UNFINISHED and server.enabled else None


def describe(server: Server, state: str, reason: str, since: datetime | None) -> str:
    """`gpu9: no route, since 10:02, next retry 10:06`: one line for people."""
    still = "still accepted there: " if state == State.REMOVING else ""
    text = f"{server.name}: {still}{reason or state}"
    if since is not None:
        text += f", since {format_time(since)}"
    retry = next_retry(server, state)
    return text + (f", next retry {format_time(retry)}" if retry is not None else "")


@dataclass(frozen=True)
class KeyStatus:
    """A key on all servers. `is_wanted`: it should be on them."""

    key: SSHKey
    is_wanted: bool
    servers: tuple[KeyOnServer, ...]

    @property
    def live(self) -> int:
        return sum(1 for one in self.servers if one.state in USABLE)

    @property
    def total(self) -> int:
        return len(self.servers)

    @cached_property
    def unfinished(self) -> list[KeyOnServer]:
        """The servers on which it is pending, failed or removing."""
        return [one for one in self.servers if one.state in UNFINISHED]

    @property
    def summary(self) -> str:
        if self.is_wanted:
            return f"live on {self.live} of {count_servers(self.total)}"
        if not self.unfinished:
            return "removed everywhere"
        names = [one.server.name for one in self.unfinished]
        where = ", ".join(names) if len(names) <= MAX_NAMES else count_servers(len(names))
        return f"removed, but still accepted on {where}"


def status_of(keys: Sequence[SSHKey], *, servers: Sequence[Server] | None = None) -> list[KeyStatus]:
    """The state of these keys (with their `user` loaded) on all servers in service, in the order of the keys.

    A constant number of queries, plus one for each hundred keys. A server out of service appears only if it
    may still accept a removed key.
    """
    known = sorted_by_name(Server.objects.all() if servers is None else servers)
    snapshot = key_ranges.load(keys, known)
    return [_status(key, known, snapshot) for key in keys]


def all_statuses(*, servers: Sequence[Server] | None = None) -> Iterator[KeyStatus]:
    """The same of all active keys, then of removed ones that a server may still accept; loaded in batches.

    Without the times since when keys are live: reading them would take most of the time.
    """
    known = sorted_by_name(Server.objects.all() if servers is None else servers)
    for rows in (SSHKey.objects.active(), key_ranges.removed_keys(known).filter(revoked_at__isnull=False)):
        for batch in _batches(rows.select_related("user").order_by("user__username", "pk").iterator(BATCH)):
            snapshot = key_ranges.load(batch, known, with_times=False)
            yield from (_status(key, known, snapshot) for key in batch)


def pending_on(server: Server, limit: int) -> list[tuple[SSHKey, KeyOnServer]]:
    """The first `limit` keys that this server lacks or still has to remove."""
    late = key_ranges.late_keys(server).select_related("user").order_by("user__username", "pk")
    return [
        (status.key, one) for status in status_of(list(late[:limit]), servers=[server]) for one in status.unfinished
    ]


def sorted_by_name(servers: Iterable[Server]) -> list[Server]:
    """gpu2 before gpu10."""
    return sorted(servers, key=lambda server: _natural(server.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """The name as text and numbers in pairs that can be compared."""
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


def _status(key: SSHKey, servers: Sequence[Server], snapshot: Snapshot) -> KeyStatus:
    is_wanted = key.is_active and key.user.is_active
    found = []
    for server in servers:
        row = snapshot.placements.get((server.pk, key.user_id))
        if is_wanted:
            places = _wanted(server, row, snapshot.last_range(key), snapshot)
        else:
            places = _unwanted(server, row, key, snapshot)
        one = KeyOnServer(server, tuple(places))
        if server.enabled or one.state == State.REMOVING:
            found.append(one)
    return KeyStatus(key, is_wanted, tuple(found))


def _wanted(server: Server, row: Placement | None, range_: KeyRange | None, snapshot: Snapshot) -> Iterator[Place]:
    """The key files of a key that should be there; `range_` is its last one."""
    reason, since, confirmed = "", None, None
    if range_ is None or range_.until is not None:
        reason = "this account has no port: sign in through the directory once"
    elif server.state.held_revision < range_.start:
        reason, since = snapshot.delay(server)
    else:
        confirmed = snapshot.confirmed.get((server.pk, range_.start))
    for name, outcome, began, error in _files(server, row):
        if outcome == Placement.State.ABSENT:
            yield Place(name, State.NOT_REGISTERED, None, NO_ACCOUNT[name])
        elif reason:
            yield Place(name, State.PENDING, since, reason)
        elif outcome == Placement.State.FAILED:
            yield Place(name, State.FAILED, began, error)
        else:
            yield Place(name, State.LIVE, max((at for at in (confirmed, began) if at is not None), default=None))


def _unwanted(server: Server, row: Placement | None, key: SSHKey, snapshot: Snapshot) -> Iterator[Place]:
    """The key files of a key that should not be there (any more)."""
    range_ = snapshot.last_range(key)
    until = range_.until if range_ is not None else None
    is_confirmed = until is not None and server.state.held_revision >= until
    may_hold = snapshot.may_hold(server, key)
    for name, outcome, began, error in _files(server, row):
        if outcome == Placement.State.ABSENT:
            yield Place(name, State.NOT_REGISTERED, None, NO_ACCOUNT[name])
        elif may_hold:
            reason, since = snapshot.delay(server)
            yield Place(name, State.REMOVING, since, reason)
        elif until is None or not is_confirmed:
            yield Place(name, State.REMOVED, None, "it was never there")
        elif outcome == Placement.State.FAILED and (row is None or row.last_good_revision < until):
            yield Place(name, State.REMOVING, began, error)
        else:
            yield Place(name, State.REMOVED, snapshot.confirmed.get((server.pk, until)))


def _files(server: Server, row: Placement | None) -> Iterator[tuple[str, str, datetime | None, str]]:
    """Of each key file: its place, what the server reported of it, since when, and the error."""
    absent = Placement.State.ABSENT
    error = messages.phrase(row.error if row else None, "person")
    yield (HOST, row.host, row.host_since, error) if row else (HOST, absent, None, "")
    yield (CONTAINER, row.container, row.container_since, error) if row else (CONTAINER, absent, None, "")
    if row is not None and row.host == row.container == Placement.State.FAILED:
        # the person's entry as a whole may have been refused: then register's file still has their old keys
        yield REGISTER, Placement.State.FAILED, row.host_since, error
    else:
        outcome = server.state.register_outcome or Placement.State.GOOD
        yield REGISTER, outcome, server.state.register_since, "register's key file could not be written"
