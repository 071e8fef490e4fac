"""The keys that were pushed last, on the disk: everybody's file and the log that continues it."""

import hashlib
import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from labhost.errors import LabhostError, OtherBase, StaleRevision
from labhost.host.config import Host
from labhost.keys import applied_keys, set_keys
from labhost.keys.public_keys import digest_of
from labhost.system import files

from tests.hostscripts import hosts
from tests.hostscripts.conftest import changes, register_file, request
from tests.hostscripts.public_keys import ed25519

PEOPLE = {f"user{number}": [ed25519(number)] for number in range(200)}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = hosts.make(tmp_path)
    assert set_keys.set_keys(host, request(1, PEOPLE))["ok"]
    return host


def everybody(host: Host) -> Path:
    return host.paths.state / "keys.json"


def log(host: Host) -> Path:
    return host.paths.state / "keys.log"


def change(host: Host, revision: int, before: dict[str, Any], name: str = "user7") -> dict[str, Any]:
    """Applies another key of this person; gives what holds then."""
    after = before | {name: [ed25519(1000 + revision)]}
    assert set_keys.set_keys(host, changes(revision, before, after))["ok"]
    return after


def test_y10_a_change_costs_a_line_and_not_everybodys_keys(host: Host) -> None:
    before = everybody(host).stat()
    after = change(host, 2, PEOPLE)
    now = everybody(host).stat()
    assert (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert log(host).stat().st_size < 1000 < before.st_size
    assert applied_keys.load(host).digest == digest_of(after) and applied_keys.load(host).complete


def test_the_disk_holds_what_a_session_remembers_whatever_was_pushed(tmp_path: Path) -> None:
    host, memory, dice, now = hosts.make(tmp_path), applied_keys.Memory(), random.Random(1), dict[str, Any]()
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


def test_two_sessions_by_turns_read_only_what_the_other_has_added(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions, now = [applied_keys.Memory(), applied_keys.Memory()], PEOPLE
    for revision in range(2, 30):
        if revision == 4:  # from here on both know everybody
            monkeypatch.setattr(applied_keys, "load_object", lambda *_: pytest.fail("everybody's keys are read again"))
        before, now = now, now | {f"user{revision}": [ed25519(1000 + revision)]}
        assert set_keys.set_keys(host, changes(revision, before, now), sessions[revision % 2])["ok"]
    monkeypatch.undo()
    assert applied_keys.load(host) == sessions[0].load(host) == sessions[1].load(host)


def test_y6_everybodys_file_that_cannot_be_written_is_no_loss(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, after = applied_keys.Memory(), applied_keys.Memory(), PEOPLE | {"user1": [ed25519(2000)]}
    assert set_keys.set_keys(host, changes(2, PEOPLE, after), one)["ok"]

    def full(*_: object, **__: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        one.save(host, applied_keys.Applied(9, "x"))
    monkeypatch.undo()
    assert set_keys.set_keys(host, changes(3, after, PEOPLE), other)["ok"]
    assert set_keys.set_keys(host, changes(4, PEOPLE, after), one)["ok"]
    assert applied_keys.load(host) == one.load(host)


def test_a_long_log_becomes_everybodys_file_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applied_keys, "LOG_LEAST", 2000)
    now, old = PEOPLE, everybody(host).stat().st_ino
    for revision in range(2, 200):
        now = change(host, revision, now, f"user{revision}")
        if everybody(host).stat().st_ino != old:
            break
    assert not log(host).exists() and 20 < revision < 200, "never, or too soon"
    assert applied_keys.load(host).digest == digest_of(now)
    change(host, 500, now)


def test_y3_a_line_that_a_power_cut_tore_is_not_believed(host: Host) -> None:
    after = change(host, 2, PEOPLE)
    last = change(host, 3, after)
    with log(host).open("r+b") as stream:
        stream.truncate(log(host).stat().st_size - 10)
    found = applied_keys.load(host)
    assert not found.complete and found.revision == 3, "begun, as far as anybody knows"
    with pytest.raises(OtherBase):
        set_keys.set_keys(host, changes(4, last, PEOPLE))
    with pytest.raises(StaleRevision):
        set_keys.set_keys(host, request(2, after))
    assert set_keys.set_keys(host, request(4, last))["ok"]
    assert applied_keys.load(host).complete and applied_keys.load(host).digest == digest_of(last)
    change(host, 5, last)


@pytest.mark.parametrize(
    "tail", [b"\xff\n", b"[]\n", b"{}\n", b'{"revision": 9}\n', b"\n", b'{"begun": "x"}\n'], ids=str
)
def test_a_damaged_log_is_set_right_by_everybodys_keys(host: Host, tail: bytes) -> None:
    after = change(host, 2, PEOPLE)
    with log(host).open("ab") as stream:
        stream.write(tail)
    assert not applied_keys.load(host).complete and applied_keys.load(host).revision == 2
    assert set_keys.set_keys(host, request(3, after))["ok"]
    assert applied_keys.load(host).complete


def test_a_log_that_continues_another_file_is_not_read(host: Host) -> None:
    """As when everybody's keys were written, and a kill came before the old log was removed."""
    change(host, 2, PEOPLE)
    old = log(host).read_bytes()
    assert set_keys.set_keys(host, request(3, {"alice": [ed25519(1)]}))["ok"]
    log(host).write_bytes(old)
    assert applied_keys.load(host).revision == 3 and applied_keys.load(host).complete
    after = change(host, 4, {"alice": [ed25519(1)]}, "alice")
    assert applied_keys.load(host).digest == digest_of(after)


def test_without_everybodys_file_the_log_counts_for_nothing(host: Host) -> None:
    change(host, 2, PEOPLE)
    everybody(host).unlink()
    assert applied_keys.load(host) == applied_keys.Applied()
    assert set_keys.set_keys(host, request(3, PEOPLE))["ok"] and applied_keys.load(host).revision == 3


def test_y6_a_line_for_which_the_disk_has_no_room_leaves_the_log_as_it_was(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    after, memory = change(host, 2, PEOPLE), applied_keys.Memory()
    before, text = log(host).read_bytes(), register_file(host.paths.home.parent).read_text()

    def full(fd: int, data: bytes) -> None:
        os.write(fd, data[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(OSError, match="No space"):
        set_keys.set_keys(host, changes(3, after, PEOPLE), memory)
    monkeypatch.undo()
    assert log(host).read_bytes() == before and register_file(host.paths.home.parent).read_text() == text
    assert set_keys.set_keys(host, changes(3, after, PEOPLE), memory)["ok"]


def test_a_person_whose_keys_stay_but_who_is_somebody_else_now_is_kept_apart(host: Host) -> None:
    push = request(2, PEOPLE)
    set_keys.set_keys(host, push | {"ids": push["ids"] | {"user7": hosts.SUBUID + 65536}})
    assert applied_keys.load(host).ids["user7"] == hosts.SUBUID + 65536


def test_everybodys_file_of_an_older_version_is_read(host: Host) -> None:
    value = json.loads(everybody(host).read_text())
    del value["mark"], value["ids"], value["failed"]
    everybody(host).write_text(json.dumps(value))
    assert applied_keys.load(host).revision == 1 and applied_keys.load(host).users.keys() == PEOPLE.keys()
    change(host, 2, PEOPLE)


def test_a_damaged_file_is_reported_with_what_to_do(host: Host) -> None:
    everybody(host).write_text("{}")
    with pytest.raises(LabhostError, match="remove it and push the keys again"):
        applied_keys.load(host)
