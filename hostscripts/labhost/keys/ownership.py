"""Whose keys these are: by the first of a person's subordinate ids, which nobody ever gets again. A name may come to
somebody new while a server still has what a former person of that name left there."""

from collections.abc import Mapping, Set

from labhost.errors import BadRequest
from labhost.host.config import SUBUID_COUNT
from labhost.host.user_state import User
from labhost.keys.applied_keys import Applied

IDS_MOST = 2**32 - SUBUID_COUNT
SOMEBODY_ELSE = "registered here as somebody else of that name; remove it first"


def parse(raw: object, most: int) -> dict[str, int]:
    """The `ids` of a push; BadRequest."""
    if not isinstance(raw, dict) or len(raw) > most:
        raise BadRequest("ids must be an object of people")
    if not all(type(start) is int and 0 <= start <= IDS_MOST for start in raw.values()):
        raise BadRequest("ids must be the first subordinate id of each person")
    return raw


def merge(told: Mapping[str, int], before: Applied, names: Set[str]) -> dict[str, int]:
    """As a push tells, or as was told before of those about whom it says nothing."""
    known = {**before.ids, **told}
    for name in known.keys() - names:
        del known[name]
    return known


def belongs_to_other_person(user: User, applied: Applied) -> bool:
    """The keys of her name are not hers, but another person's."""
    return bool(user.subuid) and applied.ids.get(user.name, user.subuid) != user.subuid
