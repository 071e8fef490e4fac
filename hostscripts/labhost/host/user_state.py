"""What this server knows about each person: one JSON file per person."""

import os
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from labhost.errors import NotRegistered
from labhost.host.config import Host
from labhost.system import check_name, is_name
from labhost.system.json_files import damaged, known_fields, load_object, save_object

PATH_CACHE_SIZE = 4096  # a push of everybody's keys asks for each person's paths a dozen times


@dataclass
class User:
    """One person on this server. Ids, port and address are 0 or empty until they are known."""

    name: str
    uid: int = 0
    gid: int = 0
    account: str = ""  # "", "creating" (useradd was about to run) or "created"
    port: int = 0
    subuid: int = 0
    fetched_at: float = 0.0  # when the portal last gave port and limits, seconds since the epoch
    keys: list[dict[str, str]] = field(default_factory=list)  # as the portal gave them at registration
    keys_revision: int = 0  # the applied revision at that moment
    ssh_config: str = ""
    address: str = ""
    container_uid: int = 0
    container_gid: int = 0
    steps: list[str] = field(default_factory=list)
    registered: bool = False
    desired_state: str = "stopped"  # or "running"
    storage: str = ""  # the driver that made the root file system; "" until then
    needs_provisioning: bool = False  # account and keys are not in the current root file system yet
    forwards: list[list[int]] = field(default_factory=list)  # pairs: port of the container, port of the server
    limits: dict[str, str] = field(default_factory=dict)  # as the portal last gave them, see limits.py
    removal: str = ""  # "keep" or "purge" (the files) once a removal has begun
    kept_folder: str = ""  # where a removal moves the files
    unknown: dict[str, Any] = field(default_factory=dict)  # fields of a newer version; saved again as they were

    @property
    def managed(self) -> bool:
        """True once labhost has created the account: it touches no other account."""
        return self.account == "created" and self.uid > 0


def home_folder(host: Host, name: str) -> Path:
    return _home(host.paths.home, name)


@lru_cache(maxsize=PATH_CACHE_SIZE)
def _home(homes: Path, name: str) -> Path:
    return homes / check_name(name)


def load_user(host: Host, name: str) -> User | None:
    """LabhostError if the file is damaged."""
    path = _user_file(host, name)
    value = load_object(path)
    if value is None:
        return None
    value.pop("unknown", None)
    known = known_fields(User, value)
    if known.get("name") != name:
        raise damaged(path)
    return User(**known, unknown={key: content for key, content in value.items() if key not in known})


def find_registered(host: Host, name: str) -> User:
    """NotRegistered if the person has no container here."""
    user = load_user(host, name)
    if user is None or not user.registered:
        server = host.config.server.name
        text = f"{name} has no container on {server}: ssh register@{server}-manage {name}"
        raise NotRegistered(text, reason="no_container", name=name, server=server)
    return user


def no_account(host: Host, name: str) -> NotRegistered:
    server = host.config.server.name
    return NotRegistered(f"{name} has no account on {server}", reason="no_account", name=name, server=server)


def save_user(host: Host, user: User, *, durable: bool = True) -> None:
    value = asdict(user)
    save_object(_user_file(host, user.name), value | value.pop("unknown"), durable=durable)


def delete_user(host: Host, name: str) -> None:
    _user_file(host, name).unlink(missing_ok=True)


def all_names(host: Host) -> list[str]:
    """Everybody this server has a file about, sorted."""
    folder = host.paths.state / "users"
    found = os.listdir(folder) if folder.is_dir() else []
    return sorted(name for text in found if text.endswith(".json") and is_name(name := text[:-5]))


def all_users(host: Host) -> list[User]:
    return [user for name in all_names(host) if (user := load_user(host, name)) is not None]


def holder_of_port(host: Host, port: int, user: User) -> str:
    """Who has the port here, other than this person; empty if nobody has."""
    return next((other.name for other in all_users(host) if other.port == port and other.name != user.name), "")


def _user_file(host: Host, name: str) -> Path:
    return host.paths.state / "users" / f"{check_name(name)}.json"
