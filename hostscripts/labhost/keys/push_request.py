"""A set-keys request, checked: each person's entry and each key alone, so that a bad one costs no other."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from labhost.errors import BadRequest
from labhost.keys import history, ownership, revoked
from labhost.keys.public_keys import BadKey, Keys, RefusedKeys, digest_of, judge_entries
from labhost.system import is_name, log, printable

REVISION_MOST = 2**53
USERS_MOST = 200_000


class Push(NamedTuple):
    revision: int
    digest: str
    users: dict[str, Keys]  # the acceptable entries
    errors: dict[str, BadKey]  # name -> why that person's entry is not applied
    refused: dict[str, RefusedKeys]  # the bad keys of people whose other keys are applied
    ids: dict[str, int]  # name -> first subordinate id, of everybody with keys in this push
    base: str | None = None  # the digest of the state that this changes; None: this holds everybody
    gone: frozenset[str] = frozenset()  # with a base: people who no longer have an entry
    step: history.Step = history.Step()
    acknowledged: frozenset[str] = frozenset()  # fingerprints of keys revoked by hand here that the portal has seen

    @property
    def names(self) -> set[str]:
        return self.users.keys() | self.errors.keys() | self.gone


def parse(request: Mapping[str, Any]) -> Push:
    """Push of a request, each person's entry judged alone; BadRequest if the request as a whole is not valid."""
    revision, digest, base = request.get("revision"), request.get("digest"), request.get("base")
    if not isinstance(revision, int) or isinstance(revision, bool) or not 0 <= revision <= REVISION_MOST:
        raise _invalid("revision")
    if not isinstance(digest, str) or not (base is None or isinstance(base, str)):
        raise _invalid("digest")
    people = "users" if base is None else "changes"
    raw = request.get(people)
    if not isinstance(raw, dict) or len(raw) > USERS_MOST:
        raise _invalid(people)
    try:
        differs = base is None and digest != digest_of(raw)
    except (ValueError, RecursionError) as error:
        raise _invalid("users") from error
    if differs:
        raise BadRequest("the digest differs from the users; send the request again", reason="digest_differs")
    ids = ownership.parse(request.get("ids"), USERS_MOST)
    known = {"version", "revision", "digest", "base", people, "ids", "id", "previous", "acknowledged"}
    log.ignored("set-keys", request.keys() - known)
    gone = frozenset(name for name, entries in raw.items() if entries is None and is_name(name) and base is not None)
    users, errors, refused = _judge({name: entries for name, entries in raw.items() if name not in gone}, ids)
    acknowledged = revoked.parse_acknowledged(request.get("acknowledged"))
    return Push(revision, digest, users, errors, refused, ids, base, gone, history.parse(request), acknowledged)


def _invalid(field: str) -> BadRequest:
    return BadRequest(f"the field {field!r} of the request is not valid", reason="field_invalid", field=field)


def _judge(
    raw: Mapping[str, Any], ids: Mapping[str, int]
) -> tuple[dict[str, Keys], dict[str, BadKey], dict[str, RefusedKeys]]:
    """Each person's keys, why nothing of a person's entry is applied, and why single keys are not.

    A key that two people have is applied to neither.
    """
    users: dict[str, Keys] = {}
    errors: dict[str, BadKey] = {}
    refused: dict[str, RefusedKeys] = {}
    owners: dict[str, str] = {}  # blob -> name
    for name, entries in raw.items():
        try:
            if not is_name(name):
                raise BadKey("this is not a name of a person", reason="invalid_name", name=printable(name, 40))
            users[name], bad = judge_entries(entries)
            if users[name] and name not in ids:
                raise BadKey("the request does not say whose keys these are", reason="owner_missing")
        except BadKey as error:
            users.pop(name, None)
            errors[name] = error
            continue
        for key in users[name]:
            other = owners.setdefault(key.blob, name)
            if other != name:
                shared = BadKey("two people have one of the keys", reason="key_shared")
                bad[key.blob] = refused.setdefault(other, {})[key.blob] = shared
        if bad:
            refused[name] = bad
    for name, bad in refused.items():
        users[name] = tuple(key for key in users[name] if key.blob not in bad)
    return users, errors, refused
