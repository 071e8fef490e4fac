"""The requests of set-keys, before they are framed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from servers import protocol
from servers.protocol import Plain


@dataclass(frozen=True)
class Step:
    """From which state of a server to which one a push leads; `id` and `previous` are the random ids of revisions.

    `digest` is that of everybody's keys after the push.
    """

    revision: int
    digest: str
    id: str = ""
    previous: str = ""

    def as_json(self) -> dict[str, Any]:
        fields = {"revision": self.revision, "digest": self.digest, "id": self.id, "previous": self.previous}
        return {"version": protocol.VERSION, **fields}


def build_set_keys(step: Step, users: Plain, ids: Mapping[str, int]) -> dict[str, Any]:
    """Everybody's keys, and each person's first subordinate id. Who is left out has no keys."""
    return {**step.as_json(), "users": users, "ids": ids}


def build_changes(step: Step, base: str, users: Plain, ids: Mapping[str, int], names: Iterable[str]) -> dict[str, Any]:
    """The keys of `names`, for a host with the state of digest `base`."""
    changes = {name: users.get(name) for name in names}
    mine = {name: ids[name] for name in changes if name in ids}
    return {**step.as_json(), "base": base, "changes": changes, "ids": mine}


def build_take_away(previous: str, keys: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Take these keys (name to fingerprints) from a host whose revision has the id `previous`; none is added."""
    return {"version": protocol.VERSION, "previous": previous, "take_away": keys}
