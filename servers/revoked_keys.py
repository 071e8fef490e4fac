"""Keys that a server reports as revoked by hand there, checked as the answer of a hostile server."""

import re
from contextlib import suppress
from dataclasses import dataclass

from accounts import names

MAX_KEYS = 100  # in one answer
MAX_TIME = 2**33  # seconds since the epoch: in the year 2242
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True)
class RevokedKey:
    """`at`: when, in seconds since the epoch, as the server says."""

    fingerprint: str
    name: str
    at: int


def parse(value: object) -> tuple[RevokedKey, ...] | None:
    """None if the answer does not say. Entries that do not fit are left out, like those above MAX_KEYS."""
    if not isinstance(value, list):
        return None
    found = (
        _parse_one(item.get("fingerprint"), item.get("name"), item.get("at"))
        for item in value[:MAX_KEYS]
        if isinstance(item, dict)
    )
    return tuple(one for one in found if one is not None)


def _parse_one(fingerprint: object, name: object, at: object) -> RevokedKey | None:
    if not isinstance(fingerprint, str) or _FINGERPRINT.fullmatch(fingerprint) is None:
        return None
    if not isinstance(name, str) or not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < MAX_TIME:
        return None
    with suppress(names.NameRefused):
        return RevokedKey(fingerprint, name, at) if names.clean(name) == name else None
    return None
