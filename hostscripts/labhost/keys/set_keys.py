"""set-keys: what was pushed becomes authorized_keys files. One person's trouble stays hers.

A push holds everybody (`users`), or what differs from the state with the digest `base` (`changes`); the latter is
applied only if that state is held here and the result has the push's digest. `ids` tells whose the keys are, by the
first of her subordinate ids: what a former person of the same name has here gets none of them.
"""

import errno
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from labhost.errors import BadRequest, LabhostError, OtherBase, StaleRevision
from labhost.host import locks, user_state
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import applied_keys, key_files, ownership
from labhost.keys.applied_keys import Applied, Memory
from labhost.keys.public_keys import BadKey, KeyMap, Keys, check_entries, digest_of
from labhost.storage.inventory import inventory
from labhost.system import failpoints
from labhost.system.files import write_atomic
from labhost.system.names import is_name, printable

REVISION_MOST = 2**53
USERS_MOST = 200_000
WAIT = 60.0
VERSION = 2


@dataclass(frozen=True)
class Push:
    revision: int
    digest: str
    users: dict[str, Keys]  # what is right
    errors: dict[str, str]  # name -> why that person's entry is not applied
    ids: dict[str, int]  # name -> the first of her subordinate ids, of everybody whose keys the push holds
    base: str | None = None  # the digest of the state that this changes; None: this is everybody
    gone: frozenset[str] = frozenset()  # with a base: who has no keys any more

    @property
    def names(self) -> set[str]:
        return self.users.keys() | self.errors.keys() | self.gone


@dataclass
class Outcome:
    host: str = "absent"
    container: str = "absent"
    error: str = ""

    @property
    def failed(self) -> bool:
        return "failed" in (self.host, self.container)

    def fail(self, place: str, reason: str) -> None:
        setattr(self, place, "failed")
        self.error = printable("; ".join(part for part in (self.error, f"{place}: {reason}") if part))

    def as_json(self) -> dict[str, str]:
        return {"host": self.host, "container": self.container, "error": self.error}


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
    with locks.hold(host, locks.KEYS, seconds=WAIT, doing="keys are being written"):
        before = memory.load(host)
        _refuse_stale(push, before)
        users = effective(push, before) if push.base is None else changed(push, before)
        after = Applied(
            push.revision, push.digest, True, users, before.failed, ownership.merge(push.ids, before, users.keys())
        )
        same = before == after
        if not same:
            memory.begin(host, push.revision, push.digest)
            failpoints.hit("keys-noted")
        written = _write(host, push, after)
        failed = [name for name in written.failed() if name not in push.errors]
        complete = written.register != "failed"
        if not same or failed != before.failed or not complete:
            failpoints.hit("keys-written")
            memory.save(
                host, replace(after, complete=complete, failed=failed), None if push.base is None else push.names
            )
    return _answer(push, written)


def parse(request: Mapping[str, Any]) -> Push:
    """Push of a request, each person judged alone; BadRequest if the request as a whole makes no sense."""
    if request.get("version") != VERSION:
        raise BadRequest(f"set-keys speaks version {VERSION} of the protocol; update the portal")
    revision, digest, base = request.get("revision"), request.get("digest"), request.get("base")
    if not isinstance(revision, int) or isinstance(revision, bool) or not 0 <= revision <= REVISION_MOST:
        raise BadRequest("revision must be a number")
    if not isinstance(digest, str) or not (base is None or isinstance(base, str)):
        raise BadRequest("digest and base must be texts")
    raw = request.get("users" if base is None else "changes")
    if not isinstance(raw, dict) or len(raw) > USERS_MOST:
        raise BadRequest("users must be an object of people")
    if base is None and digest != _digest_of(raw):
        raise BadRequest("the digest differs from the users; send the request again")
    ids = ownership.parse(request.get("ids"), USERS_MOST)
    gone = frozenset(name for name, entries in raw.items() if entries is None and is_name(name) and base is not None)
    users, errors = _judge({name: entries for name, entries in raw.items() if name not in gone}, ids)
    return Push(revision, digest, users, errors, ids, base, gone)


def _digest_of(raw: object) -> str:
    try:
        return digest_of(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequest("users cannot be digested") from error


def _judge(raw: Mapping[str, Any], ids: Mapping[str, int]) -> tuple[dict[str, Keys], dict[str, str]]:
    """Each person's keys, or why they are not applied. A key that stands for two people proves neither."""
    users: dict[str, Keys] = {}
    errors: dict[str, str] = {}
    owners: dict[str, str] = {}  # blob -> name
    for name, entries in raw.items():
        try:
            if not is_name(name):
                raise BadKey("this is not the name of a person")
            keys = check_entries(entries)
            if keys and name not in ids:
                raise BadKey("it is not told whose keys these are")
        except BadKey as error:
            errors[name] = str(error)
            continue
        users[name] = keys
        for key in keys:
            other = owners.setdefault(key.blob, name)
            if other != name:
                errors[name] = errors[other] = "one of the keys stands for two people"
    return {name: keys for name, keys in users.items() if name not in errors}, errors


def _refuse_stale(push: Push, before: Applied) -> None:
    if push.revision < before.revision:
        raise StaleRevision(f"revision {push.revision} is older than {before.revision}, which is applied here")
    if push.revision == before.revision and before.digest and push.digest != before.digest:
        raise StaleRevision(f"revision {push.revision} is applied here already, with other keys than these")


def effective(push: Push, before: Applied) -> KeyMap:
    """What holds after a push of everybody: good entries, and a failed one's last keys that nobody else has."""
    users = dict(push.users)
    if push.errors:
        taken = {key.blob for keys in push.users.values() for key in keys}
        for name in push.errors.keys() & before.users.keys():
            is_same = before.ids.get(name) in (None, push.ids.get(name))
            users[name] = tuple(key for key in before.users[name] if is_same and key.blob not in taken)
    return KeyMap(users)


def changed(push: Push, before: Applied) -> KeyMap:
    """What holds after a push of changes; OtherBase unless that is, without doubt, what the portal means."""
    if push.base != before.digest or not before.complete:
        raise OtherBase("another state is applied here than these changes are for; send everybody's keys")
    names, new = push.names, {key.blob for keys in push.users.values() for key in keys}
    others = [key.blob for name, keys in before.users.items() if name not in names for key in keys]
    if push.errors or not new.isdisjoint(others):
        raise OtherBase("a changed person's keys are not acceptable; send everybody's keys")
    users = before.users.but({**push.users, **dict.fromkeys(push.gone)})
    if hashlib.sha256(users.canonical().encode("ascii")).hexdigest() != push.digest:
        raise OtherBase("the changes lead to another digest; send everybody's keys")
    return users


def _write(host: Host, push: Push, after: Applied) -> Written:
    """Everybody's files, or those of the people who changed and of those whose files failed the last time."""
    names = None if push.base is None else push.names.union(after.failed)
    written, here = Written(), _people(host, names)
    served = sorted(push.names | here.keys() if names is None else names)
    written.users = {name: Outcome() for name in served}
    batch = key_files.Batch(
        host,
        lambda user, place, error: written.users[user.name].fail(place, _reason(error)),
        here.keys(),
    )
    for name in served:
        outcome, user = written.users[name], here.get(name)
        if isinstance(user, User) and user.managed and ownership.belongs_to_other_person(user, after):
            _stage(batch, user, (), outcome)
            outcome.fail("host", ownership.SOMEBODY_ELSE)
            outcome.container = "failed"
        elif name in push.errors:
            written.users[name] = Outcome("failed", "failed", push.errors[name])
        elif isinstance(user, LabhostError):
            written.users[name] = Outcome("failed", "failed", printable(str(user)))
        elif user is not None and user.managed:
            _stage(batch, user, after.users.get(name, ()), outcome)
    batch.commit()
    written.register = _write_register(host, after.users)
    whole = [user for user in here.values() if isinstance(user, User)]
    written.containers = inventory(host, whole, batch.known)
    return written


def _stage(batch: key_files.Batch, user: User, keys: Keys, outcome: Outcome) -> None:
    for place in (key_files.HOST, key_files.CONTAINER):
        try:
            setattr(outcome, place, batch.stage(user, place, keys))
        except (LabhostError, OSError) as error:
            outcome.fail(place, _reason(error))


def _people(host: Host, names: Iterable[str] | None) -> dict[str, User | LabhostError]:
    """Those of `names` (None: all) about whom this server has a file; a damaged file is its own person's trouble."""
    found: dict[str, User | LabhostError] = {}
    for name in user_state.all_names(host) if names is None else filter(is_name, names):
        try:
            user = user_state.load_user(host, name)
        except LabhostError as error:
            found[name] = error
            continue
        if user is not None:
            found[name] = user
    return found


def current_keys(host: Host, user: User) -> Keys:
    """What was pushed last; the portal's page only if no push came since it was read. Keys lock held."""
    now = applied_keys.load(host)
    if ownership.belongs_to_other_person(user, now):
        return ()
    if user.name in now.users:
        return now.users[user.name]
    return check_entries(user.keys) if now.revision == user.keys_revision else ()


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
        "version": 1,
        "ok": not bad and written.register != "failed",
        "revision": push.revision,
        "digest": push.digest,
        "users": {name: outcome.as_json() for name, outcome in written.users.items()},
        "register": written.register,
        "containers": written.containers,
    }
    if not answer["ok"]:
        who = ", ".join(printable(name, 32) for name in bad[:5]) or "register"
        answer["error"] = {
            "code": "partial",
            "message": f"{len(bad)} people were not served ({who}); see their errors",
        }
    return answer


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if isinstance(error, OSError):
        return f"{error.filename2 or error.filename}: {error.strerror or 'cannot be written'}"
    return str(error)
