"""The owner of keys: identified by the first of their subordinate ids, which are never reissued.

A user name may pass to somebody else while a server still has the account of the person who had it before.
"""

from collections.abc import Set

from labhost.errors import BadRequest
from labhost.host import SUBUID_COUNT, User
from labhost.keys.applied_keys import Applied

IDS_MOST = 2**32 - SUBUID_COUNT
SOMEBODY_ELSE = "registered here as somebody else of that name; remove it first"


def parse(raw: object, most: int) -> dict[str, int]:
    """The `ids` of a push; BadRequest."""
    if not isinstance(raw, dict) or len(raw) > most:
        raise BadRequest("ids must be an object of people", reason="field_invalid", field="ids")
    if not all(type(start) is int and 0 <= start <= IDS_MOST for start in raw.values()):
        raise BadRequest("ids must be the first subordinate id of each person", reason="field_invalid", field="ids")
    return raw


def merge(ids: dict[str, int], before: Applied, names: Set[str]) -> dict[str, int]:
    """The ids of a push, and for the others of `names` those of the pushes before."""
    return {name: first for name, first in (before.ids | ids).items() if name in names}


def belongs_to_other_person(user: User, applied: Applied) -> bool:
    """Whether the pushed keys under this name belong to another person than the account here."""
    return bool(user.subuid) and applied.ids.get(user.name, user.subuid) != user.subuid
