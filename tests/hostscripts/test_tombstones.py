"""What remains of a removed person: their numbers, and their files until they are purged."""

import json
import re
import sys
from pathlib import Path

import pytest
from labhost.accounts import linux_accounts, tombstones
from labhost.errors import LabhostError, Refused
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.people import registration
from labhost.system.progress import Progress

from tests.hostscripts import hosts

START = 1000000000


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return hosts.make(tmp_path)


def alice(**values: object) -> User:
    return User("alice", **{"account": "created", "uid": 54321, "port": 22001, "subuid": START, **values})  # type: ignore[arg-type]


def test_a_folder_is_named_by_person_and_time(host: Host) -> None:
    assert re.fullmatch(r"alice-\d{8}-\d{6}", tombstones.new_folder(host, "alice").name)
    with pytest.raises(Refused):
        tombstones.new_folder(host, "../alice")


def test_moving_aside_is_one_rename_that_can_be_repeated(host: Host) -> None:
    home, target = host.paths.home / "alice", tombstones.new_folder(host, "alice")
    (home / "x").mkdir(parents=True)
    (home / "x/link").symlink_to("/etc")
    tombstones.move_aside(home, target)
    tombstones.move_aside(home, target)
    assert not home.exists() and (target / "x/link").is_symlink()
    assert target.parent.stat().st_mode & 0o777 == 0o700


def test_two_homes_are_never_merged(host: Host) -> None:
    home, target = host.paths.home / "alice", tombstones.new_folder(host, "alice")
    home.mkdir()
    (target / "x").mkdir(parents=True)
    with pytest.raises(LabhostError, match="not empty"):
        tombstones.move_aside(home, target)
    assert home.exists()


def test_a_tombstone_lists_earlier_folders(host: Host) -> None:
    first, second = host.paths.home / "kept-1", host.paths.home / "kept-2"
    for folder in (first, second):
        folder.mkdir()
        tombstones.record(host, alice(kept_folder=str(folder)))
    tombstones.record(host, alice(kept_folder=str(second), uid=0))
    removed = tombstones.load(host, "alice", START)
    assert removed is not None
    assert removed.kept_folders == [str(first), str(second)]
    assert (removed.uid, removed.port, removed.subuid) == (54321, 22001, START)
    assert [item.name for item in tombstones.load_all(host)] == ["alice"]


def test_a_damaged_tombstone_is_an_error(host: Host) -> None:
    tombstones.record(host, alice())
    (host.paths.state / f"removed/alice.{START}.json").write_text("half")
    with pytest.raises(LabhostError, match="damaged"):
        tombstones.load(host, "alice", START)


def test_a_tombstone_of_a_newer_version_is_read(host: Host) -> None:
    removed = tombstones.record(host, alice())
    path = host.paths.state / f"removed/alice.{START}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reason": "left"}))
    assert tombstones.load(host, "alice", START) == removed


@pytest.mark.parametrize(("port", "subuid"), [(22001, START + 65536), (22002, START + 65535), (22002, START - 65535)])
def test_c3_the_numbers_of_a_removed_person_are_refused_to_others(host: Host, port: int, subuid: int) -> None:
    tombstones.record(host, alice())
    with pytest.raises(Refused, match="alice, who is gone"):
        linux_accounts.claim_numbers(host, User("bob", port=port, subuid=subuid))


def test_z11_a_newcomer_with_the_name_inherits_nothing(host: Host) -> None:
    """Neither the numbers nor the files, also once both of them are gone."""
    former, newcomer = alice(kept_folder=str(host.paths.home / "kept-1")), alice(port=22002, subuid=START + 65536)
    (host.paths.home / "kept-1").mkdir()
    tombstones.record(host, former)
    for port, subuid in ((22001, START + 65536), (22002, START + 1)):
        with pytest.raises(Refused, match="alice, who is gone"):
            linux_accounts.claim_numbers(host, alice(port=port, subuid=subuid))
    linux_accounts.claim_numbers(host, newcomer)
    tombstones.record(host, newcomer)
    assert [(gone.subuid, gone.kept_folders) for gone in tombstones.load_all(host)] == [
        (START, [former.kept_folder]),
        (START + 65536, []),
    ]
    last = tombstones.find_last(host, "alice")
    assert last is not None and last.subuid == START + 65536
    tombstones.purge(host, last)
    assert Path(former.kept_folder).exists()


def test_c3_a_returning_person_gets_the_same_numbers(host: Host) -> None:
    tombstones.record(host, alice())
    for user in (User("alice", port=22001, subuid=START), User("bob", port=22002, subuid=START + 65536)):
        linux_accounts.claim_numbers(host, user)
        assert user.address


def test_files_are_never_removed_when_only_the_account_is_gone(host: Host) -> None:
    """After a manual userdel and a registration that fails, `_take_back` must not remove the data."""
    rootfs = host.paths.home / "alice/.local/share/lxc/alice/rootfs"
    rootfs.mkdir(parents=True)
    (rootfs / "precious").touch()
    user = registration._continued(host, alice(registered=True, steps=["fetch", "account", "clone"]))
    assert (user.account, user.uid, user.steps) == ("creating", 0, ["clone"])
    registration._undo(registration.Run(host, user, Progress(sys.stderr)))
    assert (rootfs / "precious").exists()
