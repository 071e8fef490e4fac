"""Keys are taken away on real file systems that are full, out of inodes or read-only; only additions wait."""

import gc
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from labhost.errors import StaleRevision
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import applied_keys, key_files, set_keys
from labhost.keys.public_keys import digest_of

from tests.hostscripts import hosts
from tests.hostscripts.conftest import changes, inside, live_keys, outside, register_file, request
from tests.hostscripts.public_keys import ed25519

pytestmark = pytest.mark.root
BEFORE = {"alice": [ed25519(1), ed25519(2)], "bob": [ed25519(3)]}
WITHOUT_2 = {"alice": [ed25519(1)], "bob": [ed25519(3)]}
REPLACED = {"alice": [ed25519(4)], "bob": [ed25519(3), ed25519(5)]}  # 1 and 2 go, 4 and 5 come


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A small file system of its own, with few inodes."""
    folder, image = tmp_path / "disk", tmp_path / "image"
    folder.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=100", "none", str(folder)]
    else:
        image.touch()
        os.truncate(image, 8 << 20)
        make = ["mkfs.ext4", "-q", "-N", "100", "-m", "0", "-O", "^has_journal", str(image)]
        subprocess.run(make, check=True)
        command = ["mount", "-o", "loop", str(image), str(folder)]
    subprocess.run(command, check=True)
    try:
        yield folder
    finally:
        gc.collect()  # closes the databases on it
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def host(disk: Path) -> Host:
    """A server with the keys of BEFORE, all of it on one file system."""
    return hosts.make(disk)


@pytest.fixture(params=[key_files.FEW, 0], ids=["few", "many"])
def served(host: Host, people: dict[str, User], request: pytest.FixtureRequest, monkeypatch: Any) -> Host:
    monkeypatch.setattr(key_files, "FEW", request.param)
    push(host, 1, BEFORE)
    return host


def push(host: Host, revision: int, users: dict[str, Any], memory: set_keys.Memory | None = None) -> dict[str, Any]:
    """A push of everybody's keys in a session of its own."""
    memory = memory or set_keys.Memory()
    answer = set_keys.set_keys(host, request(revision, users), memory)
    memory.end()
    return answer


def fill(disk: Path, what: str) -> None:
    """Leave no block, or no inode."""
    with suppress(OSError):
        if what == "inodes":
            for number in range(1000):
                (disk / f"filler{number}").touch()
        else:
            with (disk / "filler").open("ab", buffering=0) as stream:
                while True:
                    stream.write(b"x" * 512)
    os.sync()


def drain(disk: Path) -> None:
    for path in disk.glob("filler*"):
        path.unlink()


def files_of(host: Host, name: str) -> list[set[int]]:
    return [live_keys(outside(host, name)), live_keys(inside(host, name))]


@pytest.mark.parametrize("what", ["blocks", "inodes"])
def test_z1_a_removed_key_goes_from_every_file(served: Host, disk: Path, what: str) -> None:
    fill(disk, what)
    before = [path(served, "bob").stat().st_mtime_ns for path in (outside, inside)]
    answer = push(served, 2, WITHOUT_2)
    assert files_of(served, "alice") == [{1}, {1}] and live_keys(register_file(disk)) == {1, 3}
    assert [path(served, "bob").stat().st_mtime_ns for path in (outside, inside)] == before
    assert answer["users"]["alice"] == {"host": "written", "container": "written", "error": None}
    assert answer["users"]["bob"] == {"host": "unchanged", "container": "unchanged", "error": None}
    if not answer["ok"]:
        assert answer["error"]["reason"] == "keys_not_recorded" and not applied_keys.load(served).complete
    with pytest.raises(StaleRevision):
        push(served, 1, BEFORE)
    changed_at = outside(served, "alice").stat().st_ctime_ns
    push(served, 2, WITHOUT_2)
    assert outside(served, "alice").stat().st_ctime_ns == changed_at, "a retry would end newer connections, too"
    drain(disk)
    assert push(served, 2, WITHOUT_2)["ok"] and applied_keys.load(served).complete
    assert "#" not in outside(served, "alice").read_text() + register_file(disk).read_text()
    assert not list(disk.rglob(".authorized_keys*"))


@pytest.mark.parametrize("what", ["blocks", "inodes"])
def test_z1_changes_in_an_open_session_take_a_key_away(served: Host, disk: Path, what: str) -> None:
    memory = set_keys.Memory()
    memory.load(served)
    fill(disk, what)
    set_keys.set_keys(served, changes(2, BEFORE, WITHOUT_2), memory)
    assert files_of(served, "alice") == [{1}, {1}] and live_keys(register_file(disk)) == {1, 3}


@pytest.mark.parametrize("what", ["blocks", "inodes"])
def test_z1_additions_wait_and_nobody_else_loses_a_key(served: Host, disk: Path, what: str) -> None:
    fill(disk, what)
    answer = push(served, 2, REPLACED)
    assert not answer["ok"] and answer["error"]["code"] == "partial"
    for name, old, new in (("alice", set(), {4}), ("bob", {3}, {3, 5})):
        for place, found in zip(("host", "container"), files_of(served, name), strict=True):
            outcome = answer["users"][name]
            assert found == (old if outcome[place] == "failed" else new), (name, place)
            assert (outcome["error"] is None) == ("failed" not in (outcome["host"], outcome["container"]))
    drain(disk)
    assert push(served, 2, REPLACED)["ok"]
    assert files_of(served, "alice") == [{4}, {4}] and files_of(served, "bob") == [{3, 5}, {3, 5}]
    assert live_keys(register_file(disk)) == {3, 4, 5}


def test_z1_the_last_key_of_a_person_goes(served: Host, disk: Path) -> None:
    fill(disk, "blocks")
    fill(disk, "inodes")
    answer = push(served, 2, {"bob": BEFORE["bob"]})
    assert files_of(served, "alice") == [set(), set()] and live_keys(register_file(disk)) == {3}
    assert answer["users"]["alice"]["error"] is None


def test_z1_z3_nothing_can_be_written_and_it_is_said_of_each_person(served: Host, disk: Path) -> None:
    with read_only(disk):
        answer = push(served, 2, WITHOUT_2)
    alice, bob = answer["users"]["alice"], answer["users"]["bob"]
    assert (alice["host"], alice["container"], answer["register"]) == ("failed", "failed", "failed")
    assert alice["error"]["reason"] == "os_error" and not answer["ok"]
    assert (bob["host"], bob["container"], bob["error"]) == ("unchanged", "unchanged", None)
    assert push(served, 2, WITHOUT_2)["ok"] and files_of(served, "alice") == [{1}, {1}]


def test_z3_homes_are_read_only_and_the_rest_is_applied(host: Host, people: dict[str, User], disk: Path) -> None:
    """root's state is elsewhere: the push is on record, and the person is retried with the next one."""
    push(host, 1, BEFORE)
    with read_only(host.paths.home / "alice"):
        answer = push(host, 2, REPLACED)
        assert answer["users"]["alice"]["host"] == "failed" and answer["users"]["alice"]["container"] == "failed"
        assert files_of(host, "bob") == [{3, 5}, {3, 5}] and live_keys(register_file(disk)) == {3, 4, 5}
        assert applied_keys.load(host).failed == ["alice"]
    answer = set_keys.set_keys(host, changes(2, REPLACED, REPLACED))
    assert answer["ok"] and files_of(host, "alice") == [{4}, {4}]


@pytest.mark.parametrize("damage", ["damaged", "gone"])
def test_z1_without_the_record_of_applied_keys_they_are_only_taken_away(served: Host, disk: Path, damage: str) -> None:
    path = applied_keys.path_of(served)
    for each in disk.glob("state/keys.sqlite3*"):
        each.unlink() if damage == "gone" else each.write_bytes(b"x" * 5000)
    if damage == "gone":
        path.mkdir()  # so that it cannot be made either
    answer = push(served, 2, REPLACED)
    assert answer["error"]["reason"] == "keys_not_recorded"
    assert files_of(served, "alice") == [set(), set()] and files_of(served, "bob") == [{3}, {3}]
    assert answer["users"]["alice"]["host"] == answer["users"]["bob"]["host"] == "failed"
    assert live_keys(register_file(disk)) == {3}


def test_z1_an_older_push_is_refused_although_the_database_could_not_be_written(served: Host, disk: Path) -> None:
    path = applied_keys.path_of(served)
    memory = set_keys.Memory()
    memory.load(served)
    fill(disk, "blocks")
    fill(disk, "inodes")
    answer = push(served, 3, {"bob": BEFORE["bob"]})
    if answer["ok"]:
        pytest.fail("the database had room, so this shows nothing")
    with pytest.raises(StaleRevision):
        push(served, 2, BEFORE)
    with pytest.raises(StaleRevision):
        set_keys.set_keys(served, request(2, BEFORE), memory)
    drain(disk)
    with pytest.raises(StaleRevision):
        push(served, 2, BEFORE)
    assert push(served, 3, {"bob": BEFORE["bob"]})["ok"] and path.exists()
    assert applied_keys.load(served).digest == digest_of({"bob": BEFORE["bob"]})
