"""set-keys: a pushed users map becomes authorized_keys files. One person's trouble stays hers."""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import accounts, beneath, container, faults, locks, state, storage
from .config import Host
from .errors import BadRequest, LabhostError, StaleRevision
from .files import write_atomic
from .frame import digest_of
from .keys import BadKey, PublicKey, check_entries, render_container, render_host, render_register
from .names import is_name, printable
from .state import Applied, User

REVISION_MOST = 2**53
USERS_MOST = 200_000
WAIT = 60.0


@dataclass(frozen=True)
class Push:
    revision: int
    digest: str
    users: dict[str, list[PublicKey]]  # what is right
    errors: dict[str, str]  # name -> why that person's entry is not applied


@dataclass
class Outcome:
    host: str = "absent"
    container: str = "absent"
    error: str = ""

    @property
    def failed(self) -> bool:
        return "failed" in (self.host, self.container)

    def as_json(self) -> dict[str, str]:
        return {"host": self.host, "container": self.container, "error": self.error}


@dataclass
class Written:
    users: dict[str, Outcome] = field(default_factory=dict)
    register: str = "absent"


def set_keys(host: Host, request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the protocol to a set-keys request; LabhostError if nothing could be applied."""
    push = parse(request)
    with locks.held(host, locks.KEYS, seconds=WAIT, doing="keys are being written"):
        before = state.load_applied(host)
        if push.revision < before.revision:
            raise StaleRevision(f"revision {push.revision} is older than {before.revision}, which is applied here")
        users = effective(push, before)
        same = before.complete and (before.revision, before.digest, before.users) == (
            push.revision,
            push.digest,
            users,
        )
        if not same:
            # Noted before the first file is written: after a kill a late, older push is still refused.
            state.save_applied(host, Applied(push.revision, push.digest, False, users))
            faults.point("keys-noted")
        written = _write(host, push, users)
        if not same:
            faults.point("keys-written")
            state.save_applied(host, Applied(push.revision, push.digest, True, users))
    return _answer(host, push, written)


def parse(request: Mapping[str, Any]) -> Push:
    """Push of a request, each person judged alone; BadRequest if the request as a whole makes no sense."""
    revision, digest, raw = request.get("revision"), request.get("digest"), request.get("users")
    if not isinstance(revision, int) or isinstance(revision, bool) or not 0 <= revision <= REVISION_MOST:
        raise BadRequest("revision must be a number")
    if not isinstance(raw, dict) or len(raw) > USERS_MOST:
        raise BadRequest("users must be an object of people")
    try:
        computed = digest_of(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequest("users cannot be digested") from error
    if not isinstance(digest, str) or digest != computed:
        raise BadRequest("the digest differs from the users; send the request again")
    users: dict[str, list[PublicKey]] = {}
    errors: dict[str, str] = {}
    for name, entries in raw.items():
        try:
            if not is_name(name):
                raise BadKey("this is not the name of a person")
            users[name] = check_entries(entries)
        except BadKey as error:
            errors[name] = str(error)
    _fail_shared(users, errors)
    return Push(revision, digest, users, errors)


def _fail_shared(users: dict[str, list[PublicKey]], errors: dict[str, str]) -> None:
    """A key that stands for two people proves neither: both entries fail."""
    owners: dict[str, set[str]] = {}
    for name, keys in users.items():
        for key in keys:
            owners.setdefault(key.fingerprint, set()).add(name)
    for names in owners.values():
        if len(names) > 1:
            for name in names:
                errors[name] = "one of the keys stands for two people"
                users.pop(name, None)


def effective(push: Push, before: Applied) -> dict[str, list[PublicKey]]:
    """What holds after the push: good entries, and a failed one's last applied keys that nobody else has."""
    taken = {key.fingerprint for keys in push.users.values() for key in keys}
    users = dict(push.users)
    for name in push.errors:
        if name in before.users:
            users[name] = [key for key in before.users[name] if key.fingerprint not in taken]
    return users


def _write(host: Host, push: Push, users: Mapping[str, list[PublicKey]]) -> Written:
    here = {user.name: user for user in state.all_users(host) if user.managed}
    written = Written()
    for name in sorted(push.users.keys() | push.errors.keys() | here.keys()):
        if name in push.errors:
            written.users[name] = Outcome("failed", "failed", push.errors[name])
        elif name in here:
            written.users[name] = write_user(host, here[name], users.get(name, []))
        else:
            written.users[name] = Outcome()
    written.register = _write_register(host, users)
    return written


def write_user(host: Host, user: User, keys: list[PublicKey]) -> Outcome:
    """Both files of one person; what is wrong with her alone is in the outcome. Keys lock held."""
    outcome = Outcome()
    reasons = []
    try:
        outcome.host = write_host_keys(host, user, keys)
    except (LabhostError, OSError) as error:
        outcome.host = "failed"
        reasons.append(f"host: {_reason(error)}")
    try:
        outcome.container = write_container_keys(host, user, keys)
    except (LabhostError, OSError) as error:
        outcome.container = "failed"
        reasons.append(f"container: {_reason(error)}")
    outcome.error = printable("; ".join(reasons))
    return outcome


def write_host_keys(host: Host, user: User, keys: list[PublicKey]) -> str:
    if accounts.entry_of(host, user) is None:
        return "absent"
    # Root's own tree; the home may be a file system of its own, so other mounts are allowed here.
    allowed = beneath.BENEATH | beneath.NO_SYMLINKS | beneath.NO_MAGICLINKS
    with (
        beneath.directory(host.paths.home) as home,
        beneath.inner(home, f"{user.name}/.ssh", allowed) as folder,
    ):
        if os.fstat(folder).st_uid != os.geteuid():
            raise LabhostError(f"{user.name}/.ssh is not root's; run register again")
        new = beneath.replace_file(folder, "authorized_keys", render_host(keys), owner=(0, 0), mode=0o644)
    return "written" if new else "unchanged"


def write_container_keys(host: Host, user: User, keys: list[PublicKey]) -> str:
    if not user.registered:
        return "absent"
    return write_inside(host, user, "authorized_keys", render_container(keys))


def write_inside(host: Host, user: User, name: str, text: str) -> str:
    """~/.ssh/NAME inside the container: written, unchanged, or absent if there is no root file system."""
    rootfs = storage.driver(host).rootfs(user)
    if not rootfs.is_dir():
        return "absent"
    owner = (user.subuid + user.inside_uid, user.subuid + user.inside_gid)
    with beneath.directory(rootfs) as root, beneath.inner(root, f"home/{user.name}") as home:
        beneath.make_directory(home, ".ssh", owner=owner, mode=0o700)
        with beneath.inner(home, ".ssh") as folder:
            new = beneath.replace_file(folder, name, text, owner=owner, mode=0o600)
    return "written" if new else "unchanged"


def _write_register(host: Host, users: Mapping[str, list[PublicKey]]) -> str:
    folder = host.paths.home / "register" / ".ssh"
    if not folder.is_dir():
        return "absent"
    try:
        new = write_atomic(Path(folder / "authorized_keys"), render_register(sorted(users.items())), mode=0o644)
    except OSError:
        return "failed"
    return "written" if new else "unchanged"


def _answer(host: Host, push: Push, written: Written) -> dict[str, Any]:
    bad = sorted(name for name, outcome in written.users.items() if outcome.failed)
    answer: dict[str, Any] = {
        "version": 1,
        "ok": not bad and written.register != "failed",
        "revision": push.revision,
        "digest": push.digest,
        "users": {name: outcome.as_json() for name, outcome in written.users.items()},
        "register": written.register,
        "containers": container.inventory(host),
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
