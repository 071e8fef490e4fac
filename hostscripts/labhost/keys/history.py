"""Whether a push continues the past of this server.

A number is no past: a portal whose database was restored gives the same numbers again. So each revision has a random
id, and a push names the id that it replaces (`previous`). If that is not the id here, nothing is applied, and the
portal learns the id. It may then take keys away, but adds none before staff let it replace exactly this id. Ids never
come again, so that a push that is late replaces nothing.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from labhost.errors import BadRequest, OtherHistory, StaleRevision
from labhost.keys.applied_keys import Applied
from labhost.keys.public_keys import Keys
from labhost.system import is_name, log

_ID = re.compile(r"(?:[0-9a-f]{32})?", re.ASCII)
FIELD = "take_away"


class Step(NamedTuple):
    """The place of a push in the portal's history; "" is the id of a server without keys."""

    id: str = ""
    previous: str = ""


class TakeAway(NamedTuple):
    """Fingerprints of keys to take away, by name, from the state with the id `previous`."""

    previous: str
    keys: dict[str, frozenset[str]]


def parse(request: Mapping[str, Any]) -> Step:
    """BadRequest unless the ids are valid, or absent."""
    return Step(_id(request, "id"), _id(request, "previous"))


def parse_take_away(request: Mapping[str, Any], most: int) -> TakeAway:
    """BadRequest."""
    raw = request.get(FIELD)
    if not isinstance(raw, dict) or len(raw) > most or not all(isinstance(found, list) for found in raw.values()):
        raise _invalid(FIELD)
    if not all(is_name(name) and all(isinstance(one, str) for one in found) for name, found in raw.items()):
        raise _invalid(FIELD)
    log.ignored("set-keys", request.keys() - {"version", "previous", FIELD})
    return TakeAway(_id(request, "previous"), {name: frozenset(found) for name, found in raw.items()})


def _id(request: Mapping[str, Any], field: str) -> str:
    value = request.get(field, "")
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise _invalid(field)
    return value


def _invalid(field: str) -> BadRequest:
    return BadRequest(f"the field {field!r} of the request is not valid", reason="field_invalid", field=field)


def check(revision: int, digest: str, step: Step, before: Applied) -> None:
    """StaleRevision or OtherHistory unless the push may replace what is applied here."""
    if before.id:
        if not step.id or (step.previous != before.id and (step.id, revision) != (before.id, before.revision)):
            raise _other(before)
    elif revision < before.revision:
        text = f"revision {revision} is older than {before.revision}, which is applied here"
        raise StaleRevision(text, reason="revision_older", revision=revision, applied=before.revision)
    elif revision == before.revision and before.digest and digest != before.digest:
        text = f"revision {revision} is applied here already, with other keys"
        raise StaleRevision(text, reason="revision_other_keys", revision=revision)


def _other(before: Applied) -> OtherHistory:
    text = f"revision {before.revision} is applied here with the id {before.id}, which this push does not replace"
    return OtherHistory(text, reason="other_history", revision=before.revision, id=before.id)


def reduced(removal: TakeAway, before: Applied) -> tuple[Applied, dict[str, Keys]]:
    """What is left, and the keys of each person whom the removal names; OtherHistory.

    It gets an id that no portal knows. A person without keys here gets an empty entry, so that keys from their
    registration do not count either.
    """
    if removal.previous != before.id:
        raise _other(before)
    left = {
        name: tuple(key for key in before.users.get(name, ()) if key.fingerprint not in gone)
        for name, gone in removal.keys.items()
    }
    users = before.users.with_changes(left)
    if users == before.users:
        return before, left
    digest = hashlib.sha256(users.canonical().encode("ascii")).hexdigest()
    return replace(before, users=users, digest=digest, id=secrets.token_hex(16)), left
