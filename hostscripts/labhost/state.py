"""What this server knows: one JSON file a person, and the users map that was applied last."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from . import files
from .config import Host
from .errors import LabhostError
from .keys import PublicKey, canonical_map
from .names import check_name, is_name

STATE_MOST = 256 * 1024 * 1024


@dataclass
class User:
    """One person on this server. Ids, port and address are 0 or empty until they are known."""

    name: str
    uid: int = 0
    gid: int = 0
    account: str = ""  # "", "creating" (useradd was about to run) or "made"
    port: int = 0
    subuid: int = 0
    values_at: float = 0.0  # when the portal last confirmed port and subuid, seconds since the epoch
    keys: list[dict[str, str]] = field(default_factory=list)  # as the portal gave them at registration
    keys_revision: int = 0  # the applied revision at that moment
    ssh_config: str = ""
    address: str = ""
    inside_uid: int = 0
    inside_gid: int = 0
    steps: list[str] = field(default_factory=list)
    registered: bool = False
    wanted: str = "stopped"  # or "running"
    storage: str = ""  # the driver with which the system was made; "" until then
    unfinished: bool = False  # the current system has not got its account and keys yet
    forwards: list[list[int]] = field(default_factory=list)  # pairs: port inside, port of the server
    limits: dict[str, str] = field(default_factory=dict)  # as the portal last gave them, see limits.py
    removal: str = ""  # "keep" or "purge" (her files) once a removal has begun
    kept: str = ""  # where a removal puts her files

    @property
    def managed(self) -> bool:
        """True once labhost has made the account: only such accounts are ever touched."""
        return self.account == "made" and self.uid > 0


_KNOWN = frozenset(item.name for item in fields(User))


@dataclass
class Applied:
    """The keys that were pushed last. `complete`: were all files written, or did a kill come between?

    `failed` holds the names of people whose files could not be written; the next push tries them again. `ids`: the
    first of each person's subordinate ids, as far as a push has told: a name may come to somebody new, they do not.
    """

    revision: int = 0
    digest: str = ""
    complete: bool = True
    users: dict[str, tuple[PublicKey, ...]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)


def home_of(host: Host, name: str) -> Path:
    return host.paths.home / check_name(name)


def load_user(host: Host, name: str) -> User | None:
    value = _load(_user_file(host, name))
    if value is None:
        return None
    try:
        user = User(**{key: content for key, content in value.items() if key in _KNOWN})
    except TypeError as error:
        raise LabhostError(f"{_user_file(host, name)} is damaged; look at it by hand") from error
    if user.name != name:
        raise LabhostError(f"{_user_file(host, name)} is damaged; look at it by hand")
    return user


def save_user(host: Host, user: User, *, lasting: bool = True) -> None:
    folder = host.paths.state / "users"
    folder.mkdir(mode=0o700, exist_ok=True)
    files.write_atomic(
        _user_file(host, user.name), json.dumps(asdict(user), indent=1) + "\n", mode=0o600, lasting=lasting
    )


def forget_user(host: Host, name: str) -> None:
    _user_file(host, name).unlink(missing_ok=True)


def all_names(host: Host) -> list[str]:
    """Everybody this server has a file about, in order."""
    try:
        files_here = os.listdir(host.paths.state / "users")
    except FileNotFoundError:
        return []
    return sorted(name for text in files_here if text.endswith(".json") and is_name(name := text[:-5]))


def all_users(host: Host) -> list[User]:
    return [user for name in all_names(host) if (user := load_user(host, name)) is not None]


def applied_signature(host: Host) -> tuple[int, ...]:
    """Changes whenever what load_applied gives may change. Keys lock held."""
    found: list[int] = []
    for path in (_applied_file(host), _begun_file(host)):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            found.append(0)
            continue
        found += [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return tuple(found)


def load_applied(host: Host) -> Applied:
    """What was applied last, or was being applied. Each key was judged before it was saved, by root and for root."""
    value = _load(_applied_file(host))
    try:
        applied = Applied() if value is None else _applied(value)
    except (KeyError, AttributeError, TypeError) as error:
        raise LabhostError(f"{_applied_file(host)} is damaged; remove it and push the keys again") from error
    begun = files.read_text(_begun_file(host))
    if begun is not None:
        applied.complete = False
        with suppress(ValueError):  # it is not synced: after a power cut it may be empty, and the push is made again
            revision, digest = begun.split()
            applied.revision, applied.digest = max(applied.revision, int(revision)), digest
    return applied


def _applied(value: dict[str, Any]) -> Applied:
    users = {
        name: tuple(PublicKey(entry["type"], entry["blob"], entry["comment"]) for entry in entries)
        for name, entries in value["users"].items()
    }
    return Applied(
        value["revision"], value["digest"], value["complete"], users, value.get("failed", []), value.get("ids", {})
    )


def begin_applying(host: Host, revision: int, digest: str) -> None:
    """Noted before the first file is written: after a kill a late, older push is still refused."""
    fresh = _begun_file(host).with_suffix(".new")
    fresh.write_text(f"{revision} {digest}\n")
    os.rename(fresh, _begun_file(host))


def save_applied(host: Host, applied: Applied) -> None:
    """All that was begun is written."""
    head = {
        "revision": applied.revision,
        "digest": applied.digest,
        "complete": applied.complete,
        "failed": applied.failed,
        "ids": applied.ids,
    }
    text = json.dumps(head).removesuffix("}") + f', "users": {canonical_map(applied.users)}}}\n'
    files.write_atomic(_applied_file(host), text, mode=0o600)
    _begun_file(host).unlink(missing_ok=True)


def _applied_file(host: Host) -> Path:
    return host.paths.state / "keys.json"


def _begun_file(host: Host) -> Path:
    return host.paths.state / "keys-begun"


def _user_file(host: Host, name: str) -> Path:
    return host.paths.state / "users" / f"{check_name(name)}.json"


def _load(path: Path) -> dict[str, Any] | None:
    text = files.read_text(path, STATE_MOST)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise LabhostError(f"{path} is damaged; look at it by hand") from error
    if not isinstance(value, dict):
        raise LabhostError(f"{path} is damaged; look at it by hand")
    return value
