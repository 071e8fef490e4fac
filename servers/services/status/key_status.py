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
from itertools import islice
from typing import TypeVar

from django.utils import timezone

from accounts.models import SSHKey
from servers import messages
from servers.models import Placement, Server
from servers.protocol import Message
from servers.services.status import key_ranges
from servers.services.status.key_ranges import Snapshot

HOST, CONTAINER, REGISTER = "host account", "container", "register"
NO_ACCOUNT = {HOST: "no account there yet", CONTAINER: "no container there yet", REGISTER: "no register there"}
BATCH = 1000  # keys that are loaded together when all are read


class State(StrEnum):
    LIVE = "live"
    PENDING = "pending"  # the server has not confirmed it yet
    FAILED = "failed"  # the server could not write the key file, or refused the key
    NOT_REGISTERED = "not registered"  # no account there; the person can register with the key
    REMOVING = "removing"  # removed at the portal, and perhaps still accepted there
    REMOVED = "removed"


PARTS = re.compile(r"([0-9]+)", re.ASCII)
MAX_NAMES = 3  # servers are named, more are counted
UNFINISHED = (State.REMOVING, State.FAILED, State.PENDING)
USABLE = (State.LIVE, State.NOT_REGISTERED)  # on the server, or at its `register` account
# A key's state on a server is the first of these that a key file there has.
PRECEDENCE: tuple[str, ...] = (*UNFINISHED, State.LIVE, State.REMOVED, State.NOT_REGISTERED)


@dataclass(frozen=True)
class Place:
    """One key file on one server. `since`: when this state began, None if that is unknown."""

    name: str
    state: State
    since: datetime | None = None
    reason: str = ""


@dataclass(frozen=True)
class OnServer:
    """The state of keys on a server: since when (None if that is unknown), and why."""

    server: Server
    state: str
    since: datetime | None
    reason: str

    @property
    def is_unfinished(self) -> bool:
        return self.state in UNFINISHED

    @property
    def next_retry(self) -> datetime | None:
        return self.server.state.next_attempt if self.is_unfinished and self.server.enabled else None

    @property
    def summary(self) -> str:
        """`gpu9: no route, since 10:02, next retry 10:06`: one line for people."""
        still = "still accepted there: " if self.state == State.REMOVING else ""
        text = f"{self.server.name}: {still}{self.reason or self.state}"
        if self.since is not None:
            text += f", since {format_time(self.since)}"
        return text + (f", next retry {format_time(self.next_retry)}" if self.next_retry is not None else "")


@dataclass(frozen=True)
class KeyOnServer(OnServer):
    """A key on a server. Its state is that of the key file that is furthest from where it should be."""

    places: tuple[Place, ...]

    @classmethod
    def of(cls, server: Server, places: tuple[Place, ...]) -> "KeyOnServer":
        one = worst(places)
        if one.state == State.LIVE and all(place.state != State.LIVE or place.name == REGISTER for place in places):
            return cls(server, State.NOT_REGISTERED, None, NO_ACCOUNT[HOST], places)
        return cls(server, one.state, one.since, one.reason, places)


Found = TypeVar("Found", Place, KeyOnServer)


def worst(found: Sequence[Found]) -> Found:
    """The one that is furthest from where it should be; of several, the one that changed last."""
    return min(found, key=lambda one: (PRECEDENCE.index(one.state), -(one.since.timestamp() if one.since else 0.0)))


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
        return [one for one in self.servers if one.is_unfinished]

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
    """The same of all active keys and of removed ones that may still be accepted; without times of live ones."""
    known = sorted_by_name(Server.objects.all() if servers is None else servers)
    for rows in (SSHKey.objects.active(), key_ranges.removed_keys(known).filter(revoked_at__isnull=False)):
        every = rows.select_related("user").order_by("user__username", "pk").iterator(BATCH)
        while batch := list(islice(every, BATCH)):
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

    def natural(server: Server) -> list[tuple[int, str]]:
        parts = PARTS.split(server.name)  # as pairs of number and text, which can be compared
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]

    return sorted(servers, key=natural)


def count_servers(count: int) -> str:
    return f"{count} server" if count == 1 else f"{count} servers"


def format_time(moment: datetime) -> str:
    local, now = timezone.localtime(moment), timezone.localtime()
    return f"{local:%H:%M:%S}" if local.date() == now.date() else f"{local.day} {local:%b %H:%M}"


def _status(key: SSHKey, servers: Sequence[Server], snapshot: Snapshot) -> KeyStatus:
    is_wanted = key.is_active and key.user.is_active
    places = _wanted if is_wanted else _unwanted
    found = [
        KeyOnServer.of(server, tuple(places(server, snapshot.placements.get((server.pk, key.user_id)), key, snapshot)))
        for server in servers
    ]
    shown = tuple(one for one in found if one.server.enabled or one.state == State.REMOVING)
    return KeyStatus(key, is_wanted, shown)


def _wanted(server: Server, row: Placement | None, key: SSHKey, snapshot: Snapshot) -> Iterator[Place]:
    """The key files of a key that should be there."""
    range_, reason, since, confirmed = snapshot.last_range(key), "", None, None
    refused = Message.from_json(row.refused.get(key.fingerprint)) if row is not None else None
    if range_ is None or range_.until is not None:
        reason = "this account has no port: sign in through the directory once"
    elif server.state.held_revision < range_.start:
        reason, since = snapshot.delay(server)
    else:
        confirmed = snapshot.confirmed.get((server.pk, range_.start))
    for name, outcome, began, error in _files(server, row):
        if outcome == Placement.State.ABSENT:
            yield Place(name, State.NOT_REGISTERED, None, NO_ACCOUNT[name])
        elif (server.pk, key.pk) in snapshot.revoked:
            yield Place(name, State.FAILED, None, "revoked on the server by its staff")
        elif reason:
            yield Place(name, State.PENDING, since, reason)
        elif refused is not None:
            yield Place(name, State.FAILED, None, messages.phrase(refused, "person"))
        elif outcome == Placement.State.FAILED:
            yield Place(name, State.FAILED, began, error)
        else:
            yield Place(name, State.LIVE, max((at for at in (confirmed, began) if at is not None), default=None))


def _unwanted(server: Server, row: Placement | None, key: SSHKey, snapshot: Snapshot) -> Iterator[Place]:
    """The key files of a key that should not be there (any more)."""
    range_ = snapshot.last_range(key)
    until = range_.until if range_ is not None else None
    is_confirmed = until is not None and server.state.cleared_revision >= until
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
