"""The applied keys in the database of a server."""

import hashlib
import itertools
import random
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from labhost.host.config import Host
from labhost.keys import applied_keys, set_keys
from labhost.keys.applied_keys import Applied, Memory
from labhost.keys.public_keys import Keys, digest_of

from tests.hostscripts import hosts
from tests.hostscripts.conftest import MANY, SCRIPTS, change_key, changes, register_file, request
from tests.hostscripts.public_keys import ed25519


@pytest.fixture
def host(host_with_many: Host) -> Host:
    return host_with_many


def test_only_root_can_read_the_database(host: Host) -> None:
    memory = Memory()
    change_key(host, 2, MANY, memory)
    files = [path for path in host.paths.state.iterdir() if path.name.startswith("keys.sqlite3")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * 4, "with its log, index and note"


def test_y10_a_change_writes_one_row(host: Host) -> None:
    memory = Memory()
    memory.load(host)
    statements: list[str] = []
    assert memory._connection is not None
    memory._connection.set_trace_callback(statements.append)
    after = change_key(host, 2, MANY, memory)
    assert len([text for text in statements if text.startswith("INSERT")]) == 1
    assert applied_keys.load(host).digest == digest_of(after) and applied_keys.load(host).complete


def test_the_database_equals_the_memory_of_a_session_after_any_pushes(tmp_path: Path) -> None:
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
        # Rendering person by person gives the same as rendering everybody at once.
        for users in (found.users, memory.load(host).users):
            assert hashlib.sha256(users.canonical().encode()).hexdigest() == digest_of(now)
            assert users.render_register() == register_file(tmp_path).read_text()


def test_sessions_read_only_the_changes_of_each_other(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions, now, parsed = [Memory(), Memory()], MANY, list[str]()
    parse = applied_keys._keys

    def noted(text: str) -> Keys:
        parsed.append(text)
        return parse(text)

    for revision in range(2, 30):
        if revision == 4:  # from here on both have read everybody
            monkeypatch.setattr(applied_keys, "_keys", noted)
        before, now = now, now | {f"user{revision}": [ed25519(1000 + revision)]}
        if revision % 5 == 0:
            del now["user100"]
            now["user100"] = [ed25519(2000 + revision)]
        assert set_keys.set_keys(host, changes(revision, before, now), sessions[revision % 2])["ok"]
    assert 20 < len(parsed) < 40, "one row for each change of the other"
    monkeypatch.undo()
    assert applied_keys.load(host) == sessions[0].load(host) == sessions[1].load(host)


def test_a_session_notices_rows_deleted_by_another(host: Host) -> None:
    one, other = Memory(), Memory()
    one.load(host)
    fewer = {name: keys for name, keys in MANY.items() if name != "user9"}
    assert set_keys.set_keys(host, changes(2, MANY, fewer), other)["ok"]
    assert set_keys.set_keys(host, request(3, fewer | {"user8": []}), other)["ok"], "rows of removed people are deleted"
    assert one.load(host) == other.load(host) == applied_keys.load(host)
    assert "user9" not in one.load(host).users
    with sqlite3.connect(applied_keys.path_of(host)) as database:
        assert database.execute("SELECT count(*) FROM people").fetchone() == (len(fewer),)


def test_readers_work_while_a_session_writes(host: Host) -> None:
    memory, now, ends = Memory(), MANY, threading.Event()
    found: list[Applied] = []

    def read() -> None:
        while not ends.is_set():
            found.append(applied_keys.load(host))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for revision in range(2, 60):
            now = change_key(host, revision, now, memory)
    finally:
        ends.set()
        reader.join()
    whole = [state for state in found if state.complete]
    assert whole and {hashlib.sha256(state.users.canonical().encode()).hexdigest() for state in whole} == {
        state.digest for state in whole
    }


def test_without_a_database_there_is_no_revision(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    assert applied_keys.load(host) == Memory().load(host) == Applied()
    assert not list(host.paths.state.iterdir()), "reading creates nothing"


@pytest.mark.parametrize("names", [[""], ["", "-wal"], ["", "-wal", "-shm"]], ids=["database", "log", "index"])
def test_a_removed_database_is_created_again_by_all_sessions(host: Host, names: list[str]) -> None:
    one, other = Memory(), Memory()
    one.load(host)
    change_key(host, 2, MANY, other)
    for name in names:
        Path(f"{applied_keys.path_of(host)}{name}").unlink()
    assert applied_keys.load(host) == one.load(host) == Applied()
    assert set_keys.set_keys(host, request(1, MANY), one)["ok"]
    assert other.load(host) == one.load(host) == applied_keys.load(host)
    after = change_key(host, 2, MANY, other)
    one.end()
    assert applied_keys.load(host).digest == digest_of(after)
    change_key(host, 3, after, one)


def test_a_new_owner_of_a_name_with_the_same_keys_is_another_row(host: Host) -> None:
    push = request(2, MANY)
    set_keys.set_keys(host, push | {"ids": push["ids"] | {"user7": hosts.SUBUID + 65536}})
    assert applied_keys.load(host).ids["user7"] == hosts.SUBUID + 65536


def test_a_start_of_a_container_does_not_import_sqlite() -> None:
    words = [sys.executable, "-c", "import sys; import labhost.container.lifecycle; sys.exit('sqlite3' in sys.modules)"]
    subprocess.run(words, cwd=SCRIPTS, check=True, timeout=30)
