"""Keys that staff revoked by hand on this server, until the portal has removed them or staff undo it.

A push never brings such a key back: the portal acknowledges a revocation by its fingerprint, in a later push.
"""

import re
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from labhost.errors import BadRequest, LabhostError, Refused
from labhost.host import Host
from labhost.system import is_name, log
from labhost.system.json_files import load_object, save_object

MOST = 1000  # revocations that are noted
LISTED_MOST = 100  # in one answer
ACKNOWLEDGED_MOST = 10_000  # in one request
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)


class Revocation(NamedTuple):
    fingerprint: str
    name: str
    at: int  # seconds since the epoch


def load(host: Host) -> list[Revocation]:
    """In the order of revoking. A damaged file must not stop a push, which may take keys away: it is logged."""
    try:
        rows = (load_object(_file(host)) or {}).get("keys", [])
        return [Revocation(str(row["fingerprint"]), str(row["name"]), int(row["at"])) for row in rows]
    except (LabhostError, LookupError, TypeError, ValueError) as error:
        log.write(f"{_file(host)} is damaged, keys that it lists may return: {error}", warning=True)
        return []


def add(host: Host, keys: Iterable[tuple[str, str]]) -> None:
    """Note revoked keys, given as pairs of name and fingerprint. The keys lock must be held."""
    before, now = load(host), int(time.time())
    known = {row.fingerprint for row in before}
    new = [Revocation(fingerprint, name, now) for name, fingerprint in keys if fingerprint not in known]
    if len(before) + len(new) > MOST:
        text = f"more than {MOST} keys are revoked by hand here; lock people out at the portal instead"
        raise Refused(text, reason="revocations_too_many", most=MOST)
    if new:
        _save(host, [*before, *new])


def forget(host: Host, fingerprints: Collection[str]) -> list[Revocation]:
    """Remove the notes of these keys and return them. The keys lock must be held."""
    before = load(host) if fingerprints else []
    gone = [row for row in before if row.fingerprint in fingerprints]
    if gone:
        _save(host, [row for row in before if row not in gone])
    return gone


def acknowledge(host: Host, fingerprints: Collection[str]) -> None:
    """The same for a push, which goes on if the notes cannot be written: a later one acknowledges them again."""
    try:
        forget(host, fingerprints)
    except OSError as error:
        log.write(f"{_file(host)} cannot be written: {error}", warning=True)


def as_answer(host: Host) -> list[dict[str, Any]]:
    """The oldest ones, as the portal reads them."""
    return [row._asdict() for row in load(host)[:LISTED_MOST] if is_name(row.name)]


def parse_acknowledged(value: object) -> frozenset[str]:
    """The fingerprints that the portal has dealt with, as a request has them; BadRequest."""
    if value is None:
        return frozenset()
    if isinstance(value, list) and len(value) <= ACKNOWLEDGED_MOST and all(map(_is_fingerprint, value)):
        return frozenset(value)
    text = "the field 'acknowledged' of the request is not valid"
    raise BadRequest(text, reason="field_invalid", field="acknowledged")


def _is_fingerprint(value: object) -> bool:
    return isinstance(value, str) and FINGERPRINT.fullmatch(value) is not None


def _save(host: Host, rows: Iterable[Revocation]) -> None:
    save_object(_file(host), {"keys": [row._asdict() for row in rows]})


def _file(host: Host) -> Path:
    return host.paths.state / "revoked.json"
