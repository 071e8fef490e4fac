"""What this server knows of each person: one JSON file a person."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from labhost.errors import LabhostError
from labhost.host.config import Host
from labhost.system import files
from labhost.system.names import check_name, is_name

MAX_STATE_SIZE = 256 * 1024 * 1024
PATH_CACHE_SIZE = 4096  # that are remembered: a push of everybody asks for each of them a dozen times


@dataclass
class User:
    """One person on this server. Ids, port and address are 0 or empty until they are known."""

    name: str
    uid: int = 0
    gid: int = 0
    account: str = ""  # "", "creating" (useradd was about to run) or "made"
    port: int = 0
    subuid: int = 0
    fetched_at: float = 0.0  # when the portal last confirmed port and subuid, seconds since the epoch
    keys: list[dict[str, str]] = field(default_factory=list)  # as the portal gave them at registration
    keys_revision: int = 0  # the applied revision at that moment
    ssh_config: str = ""
    address: str = ""
    container_uid: int = 0
    container_gid: int = 0
    steps: list[str] = field(default_factory=list)
    registered: bool = False
    desired_state: str = "stopped"  # or "running"
    storage: str = ""  # the driver with which the system was made; "" until then
    needs_provisioning: bool = False  # the current system has not got its account and keys yet
    forwards: list[list[int]] = field(default_factory=list)  # pairs: port inside, port of the server
    limits: dict[str, str] = field(default_factory=dict)  # as the portal last gave them, see limits.py
    removal: str = ""  # "keep" or "purge" (her files) once a removal has begun
    kept: str = ""  # where a removal puts her files

    @property
    def managed(self) -> bool:
        """True once labhost has made the account: only such accounts are ever touched."""
        return self.account == "created" and self.uid > 0


_KNOWN = frozenset(item.name for item in fields(User))


def home_folder(host: Host, name: str) -> Path:
    return _home(host.paths.home, name)


@lru_cache(maxsize=PATH_CACHE_SIZE)
def _home(homes: Path, name: str) -> Path:
    return homes / check_name(name)


def load_user(host: Host, name: str) -> User | None:
    value = load_object(_user_file(host, name))
    if value is None:
        return None
    try:
        user = User(**{key: content for key, content in value.items() if key in _KNOWN})
    except TypeError as error:
        raise LabhostError(f"{_user_file(host, name)} is damaged; look at it by hand") from error
    if user.name != name:
        raise LabhostError(f"{_user_file(host, name)} is damaged; look at it by hand")
    return user


def save_user(host: Host, user: User, *, durable: bool = True) -> None:
    folder = host.paths.state / "users"
    folder.mkdir(mode=0o700, exist_ok=True)
    files.write_atomic(
        _user_file(host, user.name), json.dumps(asdict(user), indent=1) + "\n", mode=0o600, durable=durable
    )


def delete_user(host: Host, name: str) -> None:
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


def _user_file(host: Host, name: str) -> Path:
    return host.paths.state / "users" / f"{check_name(name)}.json"


def load_object(path: Path) -> dict[str, Any] | None:
    """What a file of the state holds, None if there is none; LabhostError."""
    text = files.read_text(path, MAX_STATE_SIZE)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise LabhostError(f"{path} is damaged; look at it by hand") from error
    if not isinstance(value, dict):
        raise LabhostError(f"{path} is damaged; look at it by hand")
    return value
