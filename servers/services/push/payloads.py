"""What a push sends to a server: everybody's keys, or the changes since the revision that it holds."""

import threading
from dataclasses import dataclass

from accounts.services import keys
from servers import protocol
from servers.models import Server
from servers.services.push import revocations


@dataclass(frozen=True)
class Payload:
    """A framed request. `names`: the people whose keys it holds; None for everybody."""

    revision: int
    digest: str
    framed: bytes
    names: frozenset[str] | None = None


class Payloads:
    """The requests of one revision; each is built once for all servers that need it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        acknowledged = revocations.acknowledged()  # before the keys, see there
        self._extra = {"acknowledged": acknowledged} if acknowledged else {}
        state = keys.current_state()
        self.revision, self.users, self.ids = state.revision, protocol.plain(state.users), state.ids
        self._whole: Payload | None = None
        self.digest = protocol.digest(self.users)
        self._changes: dict[tuple[int, str], Payload] = {}

    def for_server(self, server: Server) -> Payload:
        """The shortest one that brings this server up to date if it still holds what it confirmed."""
        if not server.state.applied_digest or server.state.applied_revision > self.revision:
            return self.whole()
        base = (server.state.applied_revision, server.state.applied_digest)
        if base not in self._changes:
            self._changes[base] = self._since(*base)
        return self._changes[base]

    def whole(self) -> Payload:
        """Everybody's keys. Needs no database, so that a thread can call it when a server holds something else."""
        with self._lock:
            if self._whole is None:
                request = protocol.build_set_keys(self.revision, self.users, self.ids, self.digest)
                self._whole = Payload(self.revision, self.digest, protocol.frame(request | self._extra))
            return self._whole

    def _since(self, revision: int, digest: str) -> Payload:
        names = frozenset(keys.changed_since(revision))
        if 2 * len(names) > len(self.users) + 2:
            return self.whole()
        request = protocol.build_changes(self.revision, self.digest, digest, self.users, self.ids, sorted(names))
        return Payload(self.revision, self.digest, protocol.frame(request | self._extra), names)
