"""Requests for pushes, and a server in a folder with Alice and Bob on it."""

import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from labhost.accounts import linux_accounts
from labhost.host import user_state
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import key_files, set_keys
from labhost.keys.public_keys import digest_of

from tests.hostscripts import hosts
from tests.hostscripts.public_keys import ed25519

SCRIPTS = Path(__file__).resolve().parents[2] / "hostscripts"

BEFORE = {"alice": [ed25519(1)], "bob": [ed25519(2)]}
AFTER = {"alice": [ed25519(1), ed25519(3)], "carol": [ed25519(4)]}  # one key more, one person fewer, one person more
MANY = {f"user{number}": [ed25519(number)] for number in range(200)}


def request(revision: int, users: dict[str, Any]) -> dict[str, Any]:
    """A push of everybody's keys."""
    ids = dict.fromkeys(users, hosts.SUBUID)
    return {"version": 1, "revision": revision, "digest": digest_of(users), "users": users, "ids": ids}


def register_file(folder: Path) -> Path:
    return folder / "home/register/.ssh/authorized_keys"


def changes(revision: int, before: dict[str, Any], after: dict[str, Any], **other: Any) -> dict[str, Any]:
    """A push of the changes between two states of everybody's keys."""
    names = [name for name in before | after if before.get(name) != after.get(name)]
    values = {"revision": revision, "digest": digest_of(after), "base": digest_of(before)}
    ids = dict.fromkeys(names, hosts.SUBUID)
    return {"version": 1, **values, "changes": {name: after.get(name) for name in names}, "ids": ids} | other


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A server with the keys of BEFORE."""
    host = hosts.make(tmp_path)
    assert set_keys.set_keys(host, request(1, BEFORE))["ok"]
    return host


def change_key(
    host: Host, revision: int, before: dict[str, Any], memory: set_keys.Memory | None = None
) -> dict[str, Any]:
    """Push another key of user7; the state after it."""
    after = before | {"user7": [ed25519(1000 + revision)]}
    assert set_keys.set_keys(host, changes(revision, before, after), memory)["ok"]
    return after


@pytest.fixture
def host_with_many(tmp_path: Path) -> Host:
    """A server with the keys of MANY."""
    host = hosts.make(tmp_path)
    assert set_keys.set_keys(host, request(1, MANY))["ok"]
    return host


@pytest.fixture
def people(host: Host, monkeypatch: pytest.MonkeyPatch) -> dict[str, User]:
    """Alice and Bob have a host account and a container here: folders of the account that runs the tests."""
    uid, gid = os.geteuid(), os.getegid()
    found = {}
    for name in BEFORE:
        user = User(name, uid=uid or 1, gid=gid, account="created", registered=True, subuid=hosts.SUBUID)
        # Files in the container belong to the account that runs the tests.
        user.container_uid, user.container_gid = uid - hosts.SUBUID, gid - hosts.SUBUID
        user_state.save_user(host, user)
        (host.paths.home / name / ".ssh").mkdir(parents=True)
        inside(host, name).parent.parent.mkdir(parents=True)
        found[name] = user
    entry = pwd.getpwuid(uid)

    def entry_of(_: Host, user: User, known: object = None) -> pwd.struct_passwd | None:
        return entry if user.name in found else None

    monkeypatch.setattr(linux_accounts, "passwd_entry", entry_of)
    monkeypatch.setattr(key_files, "_HOST_OWNER", (uid, gid))
    return found


def outside(host: Host, name: str) -> Path:
    return host.paths.home / name / ".ssh/authorized_keys"


def inside(host: Host, name: str) -> Path:
    return host.paths.home / name / f".local/share/lxc/{name}/rootfs/home/{name}/.ssh/authorized_keys"


def live_keys(path: Path) -> set[int]:
    """The seeds of the keys that sshd accepts from a key file."""
    lines = path.read_text().splitlines() if path.exists() else []
    text = "".join(line for line in lines if not line.startswith("#"))
    return {seed for seed in range(20) if ed25519(seed)["blob"] in text}
