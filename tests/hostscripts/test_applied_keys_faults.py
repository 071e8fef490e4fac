"""Kills, power cuts, full disks and damage: the database of applied keys stays usable."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from labhost.errors import LabhostError, OtherBase, StaleRevision
from labhost.host.config import Host
from labhost.keys import applied_keys, set_keys
from labhost.keys.applied_keys import Applied, Memory
from labhost.keys.public_keys import KeyMap, digest_of

from tests.hostscripts import hosts
from tests.hostscripts.conftest import MANY, SCRIPTS, change_key, changes, request
from tests.hostscripts.public_keys import ed25519


@pytest.fixture
def host(host_with_many: Host) -> Host:
    return host_with_many


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_y3_a_half_created_database_is_empty(tmp_path: Path, size: int) -> None:
    host = hosts.make(tmp_path)
    path = applied_keys.path_of(host)
    path.write_bytes(b"x" * size)
    if size:
        with pytest.raises(
            LabhostError, match=r"is damaged .*; remove .*keys.sqlite3\* and push the keys again"
        ) as caught:
            applied_keys.load(host)
        assert caught.value.reason == "keys_database_damaged" and caught.value.params["path"] == str(path)
        return
    assert applied_keys.load(host) == Applied()
    assert set_keys.set_keys(host, request(1, MANY))["ok"] and applied_keys.load(host).users.keys() == MANY.keys()


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", '[{"type": "a"}]', "[" * 100_000], ids=range(6))
def test_a_damaged_row_is_reported_with_the_fix(host: Host, text: str) -> None:
    with sqlite3.connect(applied_keys.path_of(host)) as database:
        database.execute("UPDATE people SET keys = ? WHERE name = 'user5'", (text,))
    database.close()
    with pytest.raises(LabhostError, match="push the keys again"):
        applied_keys.load(host)


def test_corrupted_bytes_are_not_read_as_keys(host: Host) -> None:
    path, dice = applied_keys.path_of(host), random.Random(5)
    whole = path.read_bytes()
    before = applied_keys.load(host)
    real = {key for keys in before.users.values() for key in keys}
    for _ in range(300):
        data = bytearray(whole)
        place = dice.randrange(len(data))
        data[place : place + 64] = dice.randbytes(len(data[place : place + 64]))
        path.write_bytes(data)
        try:
            found = applied_keys.load(host)
        except LabhostError:
            continue
        spoiled = {key for keys in found.users.values() for key in keys} - real
        assert len(spoiled) <= 2, "old rows remain in the changed bytes"


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from labhost.host import config
from labhost.host.config import Host, Paths
from labhost.keys import applied_keys
from labhost.keys.public_keys import KeyMap, PublicKey
folder = Path(sys.argv[2])
host = Host(config.parse(config.read_values((folder / "host.conf").read_text())), Paths(state=folder / "state"))
memory = applied_keys.Memory()
revision = memory.load(host).revision
while True:
    revision += 1
    memory.begin(host, applied_keys.Applied(revision, str(revision)))
    print("begun", revision, flush=True)
    users = KeyMap({f"user{number}": (PublicKey("t", str(revision)),) for number in range(50)})
    memory.save(host, applied_keys.Applied(revision, str(revision), True, users))
    print("saved", revision, flush=True)
"""


def test_y3_killed_at_any_moment_the_database_is_whole_and_has_each_recorded_revision(tmp_path: Path) -> None:
    from labhost.host import config

    host, dice = hosts.make(tmp_path), random.Random(2)
    (tmp_path / "host.conf").write_text(config.render(hosts.VALUES))
    saved = 0
    for _ in range(12):
        words = [sys.executable, "-c", WRITER, str(SCRIPTS), str(tmp_path)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            first = writer.stdout.readline()
            time.sleep(dice.random() * 0.05)
            os.kill(writer.pid, signal.SIGKILL)
            lines = [first, *writer.stdout.read().splitlines()]
        noted = [line.split() for line in lines if len(line.split()) == 2]
        found = applied_keys.load(host)
        begun = max(int(number) for _, number in noted)
        saved = max([saved, *(int(number) for what, number in noted if what == "saved")])
        assert begun <= found.revision <= begun + 1, "an older push is still refused"
        holds = {key.blob for keys in found.users.values() for key in keys}
        assert len(holds) <= 1 and len(found.users) in (0, 50)
        held = int(next(iter(holds), "0"))
        assert held in (saved, found.revision)
        assert not found.complete or holds == {found.digest}
        saved = held  # also if the kill came before the line was written


def test_y3_a_push_lost_in_a_power_cut_is_repeated(host: Host) -> None:
    """The log loses its end: synced data is there, the rest is refused or repeated."""
    memory = Memory()
    after = change_key(host, 2, MANY, memory)
    log = Path(f"{applied_keys.path_of(host)}-wal")
    size = log.stat().st_size
    last = change_key(host, 3, after, memory)
    copy = host.paths.state.parent / "cut"
    copy.mkdir()
    cut = hosts.make(copy)
    for suffix in ("", "-wal"):
        Path(f"{applied_keys.path_of(cut)}{suffix}").write_bytes(
            Path(f"{applied_keys.path_of(host)}{suffix}").read_bytes()
        )
    cut_log = Path(f"{applied_keys.path_of(cut)}-wal")
    for length in range(cut_log.stat().st_size, size - 1, -700):
        os.truncate(cut_log, length)
        found = applied_keys.load(cut)
        assert found.digest in (digest_of(after), digest_of(last)) and found.revision in (2, 3)
        assert (
            found.users["user7"] == set_keys.judge_entries((last if found == memory.load(host) else after)["user7"])[0]
        )
    assert set_keys.set_keys(cut, request(3, last))["ok"]
    with pytest.raises(StaleRevision):
        set_keys.set_keys(cut, request(2, after))


def test_y3_an_unfinished_push_is_not_a_base_for_changes(host: Host) -> None:
    Memory().begin(host, applied_keys.Applied(2, "0" * 64))
    found = applied_keys.load(host)
    assert (found.revision, found.complete) == (2, False) and found.users.keys() == MANY.keys()
    with pytest.raises(OtherBase):
        set_keys.set_keys(host, changes(3, MANY, {}))
    with pytest.raises(StaleRevision):
        set_keys.set_keys(host, request(1, MANY))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A separate small file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    """Leave no space on the disk."""
    with suppress(OSError), (folder / "filler").open("ab", buffering=0) as stream:
        while True:
            stream.write(b"x" * 1024)


@pytest.mark.root
def test_y6_with_the_disk_full_the_old_state_stays_and_can_be_read(disk: Path) -> None:
    host = hosts.make(disk)
    people = {f"user{number}": [ed25519(number)] for number in range(100)}
    memory = Memory()
    assert set_keys.set_keys(host, request(1, people), memory)["ok"]
    before = applied_keys.load(host)
    fill(disk)
    assert applied_keys.load(host) == before
    many = KeyMap({f"user{number}": before.users["user1"] * 9 for number in range(100)})
    with pytest.raises(OSError, match="No space"):
        memory.save(host, Applied(2, "x", True, many))
    assert memory.load(host) == applied_keys.load(host) == before
    (disk / "filler").unlink()
    after = people | {"user7": [ed25519(2000)]}
    assert set_keys.set_keys(host, changes(2, people, after), memory)["ok"]


@pytest.mark.root
def test_y6_with_the_disk_full_and_no_session_the_state_can_be_read(disk: Path) -> None:
    host, memory = hosts.make(disk), Memory()
    assert set_keys.set_keys(host, request(1, MANY), memory)["ok"]
    memory.end()
    Path(f"{applied_keys.path_of(host)}-shm").unlink()  # as after a reboot, when SQLite creates it again
    fill(disk)
    assert applied_keys.load(host).digest == digest_of(MANY)
