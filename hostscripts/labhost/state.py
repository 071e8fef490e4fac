"""What this server knows: one JSON file a person, and the users map that was applied last."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from . import files
from .config import Host
from .errors import LabhostError
from .keys import PublicKey, as_entry, check_entries
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

    @property
    def managed(self) -> bool:
        """True once labhost has made the account: only such accounts are ever touched."""
        return self.account == "made" and self.uid > 0


@dataclass
class Applied:
    """The keys that were pushed last. `complete`: were all files written, or did a kill come between?"""

    revision: int = 0
    digest: str = ""
    complete: bool = True
    users: dict[str, list[PublicKey]] = field(default_factory=dict)


def home_of(host: Host, name: str) -> Path:
    return host.paths.home / check_name(name)


def load_user(host: Host, name: str) -> User | None:
    value = _load(_user_file(host, name))
    if value is None:
        return None
    known = {item.name for item in fields(User)}
    try:
        user = User(**{key: content for key, content in value.items() if key in known})
    except TypeError as error:
        raise LabhostError(f"{_user_file(host, name)} is damaged; look at it by hand") from error
    if user.name != name:
        raise LabhostError(f"{_user_file(host, name)} is damaged; look at it by hand")
    return user


def save_user(host: Host, user: User) -> None:
    folder = host.paths.state / "users"
    folder.mkdir(mode=0o700, exist_ok=True)
    files.write_atomic(_user_file(host, user.name), json.dumps(asdict(user), indent=1) + "\n", mode=0o600)


def forget_user(host: Host, name: str) -> None:
    _user_file(host, name).unlink(missing_ok=True)


def all_users(host: Host) -> list[User]:
    """Everybody this server has a file about, in the order of their names."""
    folder = host.paths.state / "users"
    names = sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []
    return [user for name in names if is_name(name) and (user := load_user(host, name)) is not None]


def load_applied(host: Host) -> Applied:
    value = _load(host.paths.state / "keys.json")
    if value is None:
        return Applied()
    try:
        users = {name: check_entries(entries) for name, entries in value["users"].items()}
        return Applied(value["revision"], value["digest"], value["complete"], users)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise LabhostError(f"{host.paths.state}/keys.json is damaged; remove it and push the keys again") from error


def save_applied(host: Host, applied: Applied) -> bool:
    """False if the file said so already."""
    value = {
        "revision": applied.revision,
        "digest": applied.digest,
        "complete": applied.complete,
        "users": {name: [as_entry(key) for key in keys] for name, keys in sorted(applied.users.items())},
    }
    return files.write_atomic(host.paths.state / "keys.json", json.dumps(value) + "\n", mode=0o600)


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
