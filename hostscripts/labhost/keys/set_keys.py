"""set-keys: turns a push into authorized_keys files. A failure of one person does not affect the others.

A push holds everybody's keys (`users`), or the differences from the state with the digest `base` (`changes`). Changes
are applied only to exactly that state, and only if the result has the digest of the push. `ids` names the owners of the
keys: the account of somebody who had the name before gets none of them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from labhost.errors import BadRequest, LabhostError, OtherBase, StaleRevision, coded
from labhost.host import Host, User, locks, user_state
from labhost.keys import applied_keys, key_files, ownership, revoked, withheld
from labhost.keys.applied_keys import Applied, Memory
from labhost.keys.public_keys import BadKey, KeyMap, Keys, check_entries, digest_of
from labhost.keys.withheld import Withheld
from labhost.storage.inventory import inventory
from labhost.system import failpoints, is_name, log, printable
from labhost.system.files import write_atomic

REVISION_MOST = 2**53
USERS_MOST = 200_000
PLACES = (key_files.HOST, key_files.CONTAINER)


class Push(NamedTuple):
    revision: int
    digest: str
    users: dict[str, Keys]  # the acceptable entries
    errors: dict[str, BadKey]  # name -> why that person's entry is not applied
    ids: dict[str, int]  # name -> first subordinate id, of everybody with keys in this push
    base: str | None = None  # the digest of the state that this changes; None: this holds everybody
    gone: frozenset[str] = frozenset()  # with a base: people who no longer have an entry
    acknowledged: frozenset[str] = frozenset()  # fingerprints of keys revoked by hand here that the portal has seen

    @property
    def names(self) -> set[str]:
        return self.users.keys() | self.errors.keys() | self.gone


@dataclass
class Outcome:
    host: str = "absent"
    container: str = "absent"
    error: LabhostError | None = None  # the first one

    @property
    def failed(self) -> bool:
        return "failed" in (self.host, self.container)

    def fail(self, error: LabhostError | OSError, *places: str) -> None:
        for place in places:
            setattr(self, place, "failed")
        self.error = self.error or coded(error)

    def as_json(self) -> dict[str, Any]:
        error = self.error and self.error.as_json()
        return {"host": self.host, "container": self.container, "error": error}


@dataclass
class Written:
    users: dict[str, Outcome] = field(default_factory=dict)
    register: str = "absent"
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def failed(self) -> list[str]:
        return sorted(name for name, outcome in self.users.items() if outcome.failed)


def set_keys(host: Host, request: Mapping[str, Any], memory: Memory | None = None) -> dict[str, Any]:
    """The answer of the protocol to a set-keys request; LabhostError if nothing could be applied."""
    push, memory = parse(request), memory or Memory()
    with locks.keys(host):
        before = memory.load(host)
        _refuse_stale(push, before)
        users = effective(push, before) if push.base is None else changed(push, before)
        ids = ownership.merge(push.ids, before, users.keys())
        after = Applied(push.revision, push.digest, True, users, before.failed, ids)
        same = before == after
        if not same:
            memory.begin(host, push.revision, push.digest)
            failpoints.hit("keys-noted")
        held = withheld.load(host, after, push.acknowledged)
        written = _write(host, push, after, held)
        withheld.release(host, held, written.failed())
        revoked.acknowledge(host, push.acknowledged)
        failed = [name for name in written.failed() if name not in push.errors]
        complete = written.register != "failed"
        if not same or failed != before.failed or not complete:
            failpoints.hit("keys-written")
            among = None if push.base is None else push.names
            memory.save(host, replace(after, complete=complete, failed=failed), among)
    return _answer(push, written) | {"revoked": revoked.as_answer(host)}


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
    log.ignored("set-keys", request.keys() - {"version", "revision", "digest", "base", people, "ids", "acknowledged"})
    gone = frozenset(name for name, entries in raw.items() if entries is None and is_name(name) and base is not None)
    users, errors = _judge({name: entries for name, entries in raw.items() if name not in gone}, ids)
    acknowledged = revoked.parse_acknowledged(request.get("acknowledged"))
    return Push(revision, digest, users, errors, ids, base, gone, acknowledged)


def _invalid(field: str) -> BadRequest:
    return BadRequest(f"the field {field!r} of the request is not valid", reason="field_invalid", field=field)


def _judge(raw: Mapping[str, Any], ids: Mapping[str, int]) -> tuple[dict[str, Keys], dict[str, BadKey]]:
    """Each person's keys, or why they are not applied. A key that two people have is applied to neither."""
    users: dict[str, Keys] = {}
    errors: dict[str, BadKey] = {}
    owners: dict[str, str] = {}  # blob -> name
    for name, entries in raw.items():
        try:
            if not is_name(name):
                raise BadKey("this is not a name of a person", reason="invalid_name", name=printable(name, 40))
            keys = check_entries(entries)
            if keys and name not in ids:
                raise BadKey("the request does not say whose keys these are", reason="owner_missing")
        except BadKey as error:
            errors[name] = error
            continue
        users[name] = keys
        for key in keys:
            other = owners.setdefault(key.blob, name)
            if other != name:
                errors[name] = errors[other] = BadKey("two people have one of the keys", reason="key_shared")
    return {name: keys for name, keys in users.items() if name not in errors}, errors


def _refuse_stale(push: Push, before: Applied) -> None:
    if push.revision < before.revision:
        text = f"revision {push.revision} is older than {before.revision}, which is applied here"
        raise StaleRevision(text, reason="revision_older", revision=push.revision, applied=before.revision)
    if push.revision == before.revision and before.digest and push.digest != before.digest:
        text = f"revision {push.revision} is applied here already, with other keys"
        raise StaleRevision(text, reason="revision_other_keys", revision=push.revision)


def effective(push: Push, before: Applied) -> KeyMap:
    """The state after a push of everybody. A person whose entry failed keeps the last keys, unless others have them."""
    users = dict(push.users)
    if push.errors:
        taken = {key.blob for keys in push.users.values() for key in keys}
        for name in push.errors.keys() & before.users.keys():
            is_same = before.ids.get(name) in (None, push.ids.get(name))
            users[name] = tuple(key for key in before.users[name] if is_same and key.blob not in taken)
    return KeyMap(users)


def changed(push: Push, before: Applied) -> KeyMap:
    """The state after a push of changes; OtherBase unless it is certainly the one that the portal means."""
    if push.base != before.digest or not before.complete:
        text = "these changes are for another state than the one applied here; send everybody's keys"
        raise OtherBase(text, reason="base_differs")
    names, new = push.names, {key.blob for keys in push.users.values() for key in keys}
    others = [key.blob for name, keys in before.users.items() if name not in names for key in keys]
    if push.errors or not new.isdisjoint(others):
        raise OtherBase("the changed keys are not acceptable; send everybody's keys", reason="changes_refused")
    users = before.users.with_changes({**push.users, **dict.fromkeys(push.gone)})
    if hashlib.sha256(users.canonical().encode("ascii")).hexdigest() != push.digest:
        raise OtherBase("the result has another digest; send everybody's keys", reason="result_differs")
    return users


def _write(host: Host, push: Push, after: Applied, held: Withheld) -> Written:
    """Write everybody's files, or those of the people in the changes and of those who failed in the last push."""
    given_back = {row.name for row in revoked.load(host) if row.fingerprint in push.acknowledged}
    names = None if push.base is None else push.names.union(after.failed, held.returning, given_back)
    written, here = Written(), _people(host, names)
    served = sorted(push.names | here.keys() if names is None else names)
    written.users = {name: Outcome() for name in served}
    batch = key_files.Batch(host, lambda user, place, error: written.users[user.name].fail(error, place), here.keys())
    for name in served:
        outcome, user = written.users[name], here.get(name)
        if isinstance(user, User) and user.managed and ownership.belongs_to_other_person(user, after):
            _stage(batch, user, (), outcome)
            outcome.fail(LabhostError(ownership.SOMEBODY_ELSE, reason="other_person", name=name), *PLACES)
        elif name in push.errors:
            outcome.fail(push.errors[name], *PLACES)
        elif isinstance(user, LabhostError):
            outcome.fail(user, *PLACES)
        elif user is not None and user.managed:
            _stage(batch, user, held.rest(name, after.users.get(name, ())), outcome)
    batch.commit()
    written.register = _write_register(host, held.rest_of_all(after.users))
    whole = [user for user in here.values() if isinstance(user, User)]
    written.containers = inventory(host, whole, batch.known)
    return written


def _stage(batch: key_files.Batch, user: User, keys: Keys, outcome: Outcome) -> None:
    for place in PLACES:
        try:
            setattr(outcome, place, batch.stage(user, place, keys))
        except (LabhostError, OSError) as error:
            outcome.fail(error, place)


def _people(host: Host, names: Iterable[str] | None) -> dict[str, User | LabhostError]:
    """Those of `names` (None: all) whom this server knows, each with the error if their file is damaged."""
    found: dict[str, User | LabhostError] = {}
    for name in user_state.all_names(host) if names is None else filter(is_name, names):
        try:
            if user := user_state.load_user(host, name):
                found[name] = user
        except LabhostError as error:
            found[name] = error
    return found


def current_keys(host: Host, user: User) -> Keys:
    """The keys pushed last; those of the registration if no push came since. The keys lock must be held."""
    now = applied_keys.load(host)
    if ownership.belongs_to_other_person(user, now):
        return ()
    keys = now.users.get(user.name)
    if keys is None:
        keys = check_entries(user.keys) if now.revision == user.keys_revision else ()
    return withheld.load(host, now).rest(user.name, keys)


def register_text(host: Host, applied: Applied) -> str:
    """What `register`'s key file should be."""
    return withheld.load(host, applied).rest_of_all(applied.users).render_register()


def _write_register(host: Host, users: KeyMap) -> str:
    folder = host.paths.home / "register" / ".ssh"
    if not folder.is_dir():
        return "absent"
    try:
        new = write_atomic(folder / "authorized_keys", users.render_register(), mode=0o644)
    except OSError:
        return "failed"
    return "written" if new else "unchanged"


def _answer(push: Push, written: Written) -> dict[str, Any]:
    bad = written.failed()
    answer: dict[str, Any] = {
        "ok": not bad and written.register != "failed",
        "revision": push.revision,
        "digest": push.digest,
        "users": {name: outcome.as_json() for name, outcome in written.users.items()},
        "register": written.register,
        "containers": written.containers,
    }
    if not answer["ok"]:
        error = LabhostError("the keys of the register account could not be written", reason="register_failed")
        if bad:
            text = f"the keys of {len(bad)} people could not be written; see their errors"
            error = LabhostError(text, reason="people_failed", count=len(bad))
        answer["error"] = {"code": "partial", **error.as_json()}
    return answer
