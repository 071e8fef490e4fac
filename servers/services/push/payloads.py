"""What a push sends to a server: everybody's keys, or the changes since the revision that it holds."""

import threading
from dataclasses import dataclass
from typing import Any

from accounts.services import keys, revision
from servers import protocol, push_requests
from servers.models import Server
from servers.push_requests import Step
from servers.services.push import revocations
from servers.ssh.dial import RemoteError

MAX_WHOLE = 4  # requests with everybody's keys that stay in memory, of servers that lag behind differently


@dataclass(frozen=True)
class Payload:
    """A framed request, empty if it is too long. `names`: the people whose keys it holds; None for everybody."""

    step: Step
    framed: bytes
    names: frozenset[str] | None = None

    @property
    def request(self) -> bytes:
        """Raises RemoteError if it is too long for a server."""
        if not self.framed:
            raise RemoteError("request_too_long", permanent=True, most=protocol.MAX_REQUEST >> 20)
        return self.framed


class Payloads:
    """The requests of one revision; each is built once for all servers that need it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        acknowledged = revocations.acknowledged()  # before the keys, see there
        self._extra = {"acknowledged": acknowledged} if acknowledged else {}
        state = keys.current_state()
        self.revision, self.users, self.ids = state.revision, protocol.plain(state.users), state.ids
        self.id, self.digest = revision.id_of(self.revision), protocol.digest(self.users)
        self._whole: dict[str, Payload] = {}
        self._changes: dict[tuple[int, str], Payload] = {}
        self._ids: dict[int, str] = {}

    def for_server(self, server: Server) -> Payload:
        """The shortest one that brings this server up to date if it still holds what it confirmed."""
        state = server.state
        if not state.applied_digest or state.ahead_since or state.applied_revision > self.revision:
            return self.everybody(server)
        base = (state.applied_revision, state.applied_digest)
        if base not in self._changes:
            self._changes[base] = self._since(*base)
        return self._changes[base]

    def everybody(self, server: Server) -> Payload:
        """Everybody's keys, for a server with the revision that it confirmed."""
        held = server.state.cleared_revision
        if held not in self._ids:
            self._ids[held] = revision.id_of(held)
        return self.whole(self._ids[held])

    def whole(self, previous: str) -> Payload:
        """Everybody's keys, in place of the revision with the id `previous`. Threads call it, so it reads no rows."""
        step = Step(self.revision, self.digest, self.id, previous)
        with self._lock:
            if previous not in self._whole:
                if len(self._whole) >= MAX_WHOLE:
                    self._whole.pop(next(iter(self._whole)))
                request = push_requests.build_set_keys(step, self.users, self.ids)
                self._whole[previous] = Payload(step, _frame(request | self._extra))
            return self._whole[previous]

    def _since(self, number: int, digest: str) -> Payload:
        names, previous = frozenset(keys.changed_since(number)), revision.id_of(number)
        if 2 * len(names) > len(self.users) + 2 and self.whole(previous).framed:
            return self.whole(previous)
        step = Step(self.revision, self.digest, self.id, previous)
        request = push_requests.build_changes(step, digest, self.users, self.ids, sorted(names))
        return Payload(step, _frame(request | self._extra), names)


def _frame(request: dict[str, Any]) -> bytes:
    try:
        return protocol.frame(request)
    except ValueError:
        return b""
