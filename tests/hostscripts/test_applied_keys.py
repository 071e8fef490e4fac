"""The keys that were pushed last, in the database of a server."""

import hashlib
import itertools
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from labhost.errors import LabhostError, OtherBase, StaleRevision
from labhost.host.config import Host
from labhost.keys import applied_keys, set_keys
from labhost.keys.applied_keys import Applied, Memory
from labhost.keys.public_keys import KeyMap, Keys, digest_of

from tests.hostscripts import hosts
from tests.hostscripts.conftest import SCRIPTS, changes, register_file, request
from tests.hostscripts.public_keys import ed25519

PEOPLE = {f"user{number}": [ed25519(number)] for number in range(200)}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = hosts.make(tmp_path)
    assert set_keys.set_keys(host, request(1, PEOPLE))["ok"]
    return host


def change(host: Host, revision: int, before: dict[str, Any], memory: Memory | None = None) -> dict[str, Any]:
    """Push another key of user7; the state after it."""
    after = before | {"user7": [ed25519(1000 + revision)]}
    assert set_keys.set_keys(host, changes(revision, before, after), memory)["ok"]
    return after


def test_only_root_can_read_the_database(host: Host) -> None:
    memory = Memory()
    change(host, 2, PEOPLE, memory)
    files = [path for path in host.paths.state.iterdir() if path.name.startswith("keys.sqlite3")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600, 0o600], "with its log and index"


def test_y10_a_change_writes_one_row(host: Host) -> None:
    memory = Memory()
    memory.load(host)
    statements: list[str] = []
    assert memory._connection is not None
    memory._connection.set_trace_callback(statements.append)
    after = change(host, 2, PEOPLE, memory)
    assert len([text for text in statements if text.startswith("INSERT")]) == 1
    assert applied_keys.load(host).digest == digest_of(after) and applied_keys.load(host).complete


def test_the_disk_holds_what_a_session_remembers_whatever_was_pushed(tmp_path: Path) -> None:
    host, memory, dice, now = hosts.make(tmp_path), Memory(), random.Random(1), dict[str, Any]()
    fresh = itertools.count(10_000)
    for revision in range(1, 300):
        before = dict(now)
        for _ in range(dice.choice((1, 1, 1, 2, 40))):
            name = f"user{dice.randrange(60)}"
            if dice.random() < 0.3:
                now.pop(name, None)
            else:
                now[name] = [ed25519(next(fresh)) for _ in range(dice.randrange(3))]
        is_whole = revision == 1 or dice.random() < 0.1
        push = request(revision, now) if is_whole else changes(revision, before, now)
        assert set_keys.set_keys(host, push, memory)["ok"]
        found = applied_keys.load(host)
        assert found == memory.load(host) and found.digest == digest_of(now)
        # What a session has rendered bit by bit is what is rendered of everybody at once.
        for users in (found.users, memory.load(host).users):
            assert hashlib.sha256(users.canonical().encode()).hexdigest() == digest_of(now)
            assert users.render_register() == register_file(tmp_path).read_text()


def test_two_sessions_by_turns_read_only_what_the_other_has_changed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, now, parsed = [Memory(), Memory()], PEOPLE, list[str]()
    parse = applied_keys._keys

    def noted(text: str) -> Keys:
        parsed.append(text)
        return parse(text)

    for revision in range(2, 30):
        if revision == 4:  # from here on both know everybody
            monkeypatch.setattr(applied_keys, "_keys", noted)
        before, now = now, now | {f"user{revision}": [ed25519(1000 + revision)]}
        if revision % 5 == 0:
            del now["user100"]
            now["user100"] = [ed25519(2000 + revision)]
        assert set_keys.set_keys(host, changes(revision, before, now), sessions[revision % 2])["ok"]
    assert 20 < len(parsed) < 40, "one row for each change of the other"
    monkeypatch.undo()
    assert applied_keys.load(host) == sessions[0].load(host) == sessions[1].load(host)


def test_a_session_sees_rows_that_another_one_has_deleted(host: Host) -> None:
    one, other = Memory(), Memory()
    one.load(host)
    fewer = {name: keys for name, keys in PEOPLE.items() if name != "user9"}
    assert set_keys.set_keys(host, changes(2, PEOPLE, fewer), other)["ok"]
    assert set_keys.set_keys(host, request(3, fewer | {"user8": []}), other)["ok"], "rows of the removed are deleted"
    assert one.load(host) == other.load(host) == applied_keys.load(host)
    assert "user9" not in one.load(host).users
    with sqlite3.connect(applied_keys.path_of(host)) as database:
        assert database.execute("SELECT count(*) FROM people").fetchone() == (len(fewer),)


def test_readers_work_while_a_session_writes(host: Host) -> None:
    memory, now, ends = Memory(), PEOPLE, threading.Event()
    found: list[Applied] = []

    def read() -> None:
        while not ends.is_set():
            found.append(applied_keys.load(host))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for revision in range(2, 60):
            now = change(host, revision, now, memory)
    finally:
        ends.set()
        reader.join()
    whole = [state for state in found if state.complete]
    assert whole and {hashlib.sha256(state.users.canonical().encode()).hexdigest() for state in whole} == {
        state.digest for state in whole
    }


def test_without_a_database_nothing_is_claimed(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    assert applied_keys.load(host) == Memory().load(host) == Applied()
    assert not list(host.paths.state.iterdir()), "reading creates nothing"


@pytest.mark.parametrize("names", [[""], ["", "-wal"], ["", "-wal", "-shm"]], ids=["database", "log", "index"])
def test_a_database_that_was_removed_begins_again_in_all_sessions(host: Host, names: list[str]) -> None:
    one, other = Memory(), Memory()
    one.load(host)
    change(host, 2, PEOPLE, other)
    for name in names:
        Path(f"{applied_keys.path_of(host)}{name}").unlink()
    assert applied_keys.load(host) == one.load(host) == Applied()
    assert set_keys.set_keys(host, request(1, PEOPLE), one)["ok"]
    assert other.load(host) == one.load(host) == applied_keys.load(host)
    after = change(host, 2, PEOPLE, other)
    one.end()
    assert applied_keys.load(host).digest == digest_of(after)
    change(host, 3, after, one)


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_y3_a_database_that_was_being_created_is_an_empty_one(tmp_path: Path, size: int) -> None:
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
    assert set_keys.set_keys(host, request(1, PEOPLE))["ok"] and applied_keys.load(host).users.keys() == PEOPLE.keys()


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", '[{"type": "a"}]', "[" * 100_000], ids=range(6))
def test_a_damaged_row_is_reported_with_what_to_do(host: Host, text: str) -> None:
    with sqlite3.connect(applied_keys.path_of(host)) as database:
        database.execute("UPDATE people SET keys = ? WHERE name = 'user5'", (text,))
    database.close()
    with pytest.raises(LabhostError, match="push the keys again"):
        applied_keys.load(host)


def test_bytes_that_a_disk_spoiled_are_no_keys(host: Host) -> None:
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
        assert len(spoiled) <= 2, "what is left of the rows in the bytes that were changed"


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
    memory.begin(host, revision, str(revision))
    print("begun", revision, flush=True)
    users = KeyMap({f"user{number}": (PublicKey("t", str(revision)),) for number in range(50)})
    memory.save(host, applied_keys.Applied(revision, str(revision), True, users))
    print("saved", revision, flush=True)
"""


def test_y3_killed_at_any_moment_it_holds_a_whole_state_and_every_revision_that_was_noted(tmp_path: Path) -> None:
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
        saved = held  # also if the kill came before the line about it


def test_y3_a_push_that_a_power_cut_lost_is_made_again(host: Host) -> None:
    """The log loses its end: what was synced is there, and what was not is refused or repeated."""
    memory = Memory()
    after = change(host, 2, PEOPLE, memory)
    log = Path(f"{applied_keys.path_of(host)}-wal")
    size = log.stat().st_size
    last = change(host, 3, after, memory)
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
        assert found.users["user7"] == set_keys.check_entries((last if found == memory.load(host) else after)["user7"])
    assert set_keys.set_keys(cut, request(3, last))["ok"]
    with pytest.raises(StaleRevision):
        set_keys.set_keys(cut, request(2, after))


def test_y3_a_push_that_was_only_begun_is_not_a_base(host: Host) -> None:
    Memory().begin(host, 2, "0" * 64)
    found = applied_keys.load(host)
    assert (found.revision, found.complete) == (2, False) and found.users.keys() == PEOPLE.keys()
    with pytest.raises(OtherBase):
        set_keys.set_keys(host, changes(3, PEOPLE, {}))
    with pytest.raises(StaleRevision):
        set_keys.set_keys(host, request(1, PEOPLE))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    """Leave no room on the disk."""
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
    assert set_keys.set_keys(host, request(1, PEOPLE), memory)["ok"]
    memory.end()
    Path(f"{applied_keys.path_of(host)}-shm").unlink()  # as after a reboot, when SQLite makes it again
    fill(disk)
    assert applied_keys.load(host).digest == digest_of(PEOPLE)


def test_a_person_whose_keys_stay_but_whose_name_passed_on_is_another_row(host: Host) -> None:
    push = request(2, PEOPLE)
    set_keys.set_keys(host, push | {"ids": push["ids"] | {"user7": hosts.SUBUID + 65536}})
    assert applied_keys.load(host).ids["user7"] == hosts.SUBUID + 65536


def test_a_start_of_a_container_does_not_import_sqlite() -> None:
    words = [sys.executable, "-c", "import sys; import labhost.container.lifecycle; sys.exit('sqlite3' in sys.modules)"]
    subprocess.run(words, cwd=SCRIPTS, check=True, timeout=30)
