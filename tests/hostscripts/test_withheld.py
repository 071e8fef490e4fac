"""Keys that are pushed but belong into no file here: of suspended people, and those revoked by hand (Z3 and Z9)."""

import io
from pathlib import Path
from typing import Any

import pytest
from labhost.accounts import linux_accounts
from labhost.admin import revocation as door
from labhost.errors import BadRequest, LabhostError, Refused
from labhost.host import config, suspensions
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import applied_keys, key_files, revoked, set_keys, withheld
from labhost.keys.public_keys import PublicKey
from labhost.people import revocation, shutdown
from labhost.people.steps import Run
from labhost.system import Progress, logind

from tests.hostscripts.conftest import AFTER, BEFORE, changes, inside, outside, register_file, request
from tests.hostscripts.public_keys import ed25519

FIRST = PublicKey(**ed25519(1)).fingerprint  # Alice's
BOBS = PublicKey(**ed25519(2)).fingerprint


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the people whose sessions were ended."""
    found: list[str] = []
    monkeypatch.setattr(logind, "end_sessions", lambda name, _: found.append(name))
    return found


@pytest.fixture
def shells(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The login shells that were set."""
    found: dict[str, str] = {}

    def set_shell(host: Host, user: User, shell: str = "") -> None:
        found[user.name] = shell or linux_accounts.login_shell(host, user)

    monkeypatch.setattr(linux_accounts, "set_login_shell", set_shell)
    return found


@pytest.fixture
def pushed(host: Host, people: dict[str, User]) -> Host:
    """The keys of BEFORE are in all files."""
    set_keys.set_keys(host, request(2, BEFORE))
    return host


def revoke(host: Host, target: str) -> revocation.Changed:
    return revocation.revoke(host, target, Progress(io.StringIO()))


def everywhere(host: Host, name: str, blob: str) -> list[bool]:
    """Whether the key is in the file of the host, of the container, and of register."""
    files = (outside(host, name), inside(host, name), register_file(host.paths.home.parent))
    return [blob in file.read_text() for file in files]


@pytest.mark.parametrize("target", ["alice", FIRST])
def test_z9_a_key_revoked_by_hand_leaves_all_files_at_once(pushed: Host, ended: list[str], target: str) -> None:
    blob = ed25519(1)["blob"]
    assert everywhere(pushed, "alice", blob) == [True, True, True]
    changed = revoke(pushed, target)
    assert changed == ([("alice", FIRST)], [])
    assert everywhere(pushed, "alice", blob) == [False, False, False]
    assert everywhere(pushed, "bob", ed25519(2)["blob"]) == [True, True, True]
    assert ended == ["alice"]


def test_z9_no_push_brings_it_back_until_the_portal_acknowledges_it(pushed: Host, ended: list[str]) -> None:
    blob = ed25519(1)["blob"]
    revoke(pushed, FIRST)
    for push in (request(2, BEFORE), request(3, BEFORE), changes(4, BEFORE, AFTER)):
        answer = set_keys.set_keys(pushed, push)
        assert [row["fingerprint"] for row in answer["revoked"]] == [FIRST]
        assert everywhere(pushed, "alice", blob) == [False, False, False]
    assert ed25519(3)["blob"] in outside(pushed, "alice").read_text(), "another key of theirs arrives"
    assert applied_keys.load(pushed).users["alice"][0].fingerprint == FIRST, "the digest stays the portal's"
    answer = set_keys.set_keys(pushed, request(5, BEFORE) | {"acknowledged": [FIRST]})
    assert answer["revoked"] == [] and everywhere(pushed, "alice", blob) == [True, True, True]


def test_z9_changes_that_acknowledge_rewrite_the_owners_files(pushed: Host, ended: list[str]) -> None:
    revoke(pushed, FIRST)
    only_bob = BEFORE | {"bob": [ed25519(9)]}
    set_keys.set_keys(pushed, changes(3, BEFORE, only_bob, acknowledged=[FIRST]))
    assert everywhere(pushed, "alice", ed25519(1)["blob"]) == [True, True, True]


def test_z9_a_registration_and_doctor_withhold_it_too(pushed: Host, people: dict[str, User], ended: list[str]) -> None:
    revoke(pushed, "alice")
    assert set_keys.current_keys(pushed, people["alice"]) == ()
    assert ed25519(1)["blob"] not in set_keys.register_text(pushed, applied_keys.load(pushed))


def test_z9_a_key_that_only_a_registration_knows_can_be_revoked(
    host: Host, people: dict[str, User], ended: list[str]
) -> None:
    zoe = User("zoe", keys=[ed25519(7)], keys_revision=1)
    from labhost.host import user_state

    user_state.save_user(host, zoe)
    assert revoke(host, "zoe").keys == [("zoe", PublicKey(**ed25519(7)).fingerprint)]
    assert set_keys.current_keys(host, zoe) == ()


def test_z9_undo_gives_it_back(pushed: Host, ended: list[str]) -> None:
    revoke(pushed, "alice")
    assert revocation.undo(pushed, FIRST).keys == [("alice", FIRST)]
    assert everywhere(pushed, "alice", ed25519(1)["blob"]) == [True, True, True]
    assert revoked.load(pushed) == []
    with pytest.raises(Refused, match="no key of alice is revoked"):
        revocation.undo(pushed, "alice")


@pytest.mark.parametrize("target", ["zoe", "SHA256:" + "A" * 43])
def test_z9_an_unknown_key_or_person_is_refused(pushed: Host, target: str) -> None:
    with pytest.raises(Refused) as refused:
        revoke(pushed, target)
    assert refused.value.reason == "no_such_key"


def test_z9_a_disk_without_room_for_the_note_stops_nothing(
    pushed: Host, ended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(revoked, "save_object", full)
    changed = revoke(pushed, FIRST)
    assert len(changed.problems) == 1 and "cannot be written" in changed.problems[0]
    assert everywhere(pushed, "alice", ed25519(1)["blob"]) == [False, False, False] and ended == ["alice"]


def test_z9_a_push_goes_on_if_the_note_cannot_be_removed(
    pushed: Host, ended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    revoke(pushed, FIRST)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(revoked, "save_object", full)
    after = {"bob": BEFORE["bob"]}
    assert set_keys.set_keys(pushed, request(3, after) | {"acknowledged": [FIRST]})["ok"]
    assert applied_keys.load(pushed).revision == 3


def test_z9_a_file_that_cannot_be_written_takes_the_login_away(
    pushed: Host, ended: list[str], shells: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = key_files.write

    def stuck(host: Host, user: User, place: str, keys: Any) -> str:
        if place == key_files.HOST:
            raise LabhostError("Read-only file system")
        return write(host, user, place, keys)

    monkeypatch.setattr(key_files, "write", stuck)
    changed = revoke(pushed, FIRST)
    assert shells["alice"] == linux_accounts.NOLOGIN and suspensions.is_suspended(pushed, "alice")
    assert any("(host) cannot be written" in problem for problem in changed.problems)


def test_z9_the_door_lists_revokes_and_undoes(
    pushed: Host, ended: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(config, "load", lambda: pushed)
    assert door.revoke(["bob"]) == 0
    assert door.revoke(["--list"]) == 0
    assert f"bob {BOBS}, 20" in capsys.readouterr().out
    assert door.revoke(["--undo", "bob"]) == 0
    assert door.revoke(["--list"]) == 0
    assert BOBS not in capsys.readouterr().out.partition("given back")[2].partition("\n")[2]


@pytest.mark.parametrize("value", ["x", 7, {}, ["SHA256:x"], [7], ["SHA256:" + "A" * 43] * 10_001])
def test_z9_acknowledgements_that_do_not_fit_are_refused(pushed: Host, value: object) -> None:
    with pytest.raises(BadRequest):
        set_keys.set_keys(pushed, request(3, BEFORE) | {"acknowledged": value})


def test_z9_a_damaged_note_stops_no_push(pushed: Host) -> None:
    (pushed.paths.state / "revoked.json").write_text('{"keys": [{"name": 7}]}')
    assert set_keys.set_keys(pushed, request(3, {"bob": [ed25519(2)]}))["ok"]
    assert outside(pushed, "alice").read_text() == ""


def test_z3_a_suspended_person_gets_no_keys_before_a_later_revision(pushed: Host, shells: dict[str, str]) -> None:
    suspensions.suspend(pushed, "alice", 3)
    for revision in (2, 3):  # on their way when the person was locked out
        set_keys.set_keys(pushed, request(revision, BEFORE))
        assert everywhere(pushed, "alice", ed25519(1)["blob"]) == [False, False, True]
    assert shells == {} and suspensions.is_suspended(pushed, "alice")
    set_keys.set_keys(pushed, request(4, {"bob": [ed25519(2)]}))
    assert suspensions.is_suspended(pushed, "alice"), "a push without their keys is no unlock"
    set_keys.set_keys(pushed, request(5, BEFORE))
    assert everywhere(pushed, "alice", ed25519(1)["blob"]) == [True, True, True]
    assert shells["alice"] == str(pushed.paths.login_shell) and not suspensions.is_suspended(pushed, "alice")


def test_z3_a_restored_portal_that_names_an_older_revision_suspends_too(pushed: Host, people: dict[str, User]) -> None:
    run = Run(pushed, people["alice"], Progress(io.StringIO()))
    shutdown._mark(run, 1)
    assert suspensions.load_all(pushed) == {"alice": 2}, "the applied revision"
    withheld.release_due(pushed)
    assert suspensions.is_suspended(pushed, "alice")


def test_z3_changes_of_others_end_a_suspension_that_is_over(pushed: Host, shells: dict[str, str]) -> None:
    suspensions.suspend(pushed, "alice", 2)
    outside(pushed, "alice").write_text("")
    set_keys.set_keys(pushed, changes(3, BEFORE, BEFORE | {"bob": [ed25519(9)]}))
    assert ed25519(1)["blob"] in outside(pushed, "alice").read_text()
    assert not suspensions.is_suspended(pushed, "alice")


def test_z3_the_login_stays_off_while_the_keys_cannot_be_written(
    pushed: Host, shells: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    suspensions.suspend(pushed, "alice", 2)
    stage = key_files.Batch.stage

    def stuck(batch: key_files.Batch, user: User, place: str, keys: Any) -> str:
        if user.name == "alice":
            raise LabhostError("Read-only file system")
        return stage(batch, user, place, keys)

    monkeypatch.setattr(key_files.Batch, "stage", stuck)
    set_keys.set_keys(pushed, request(3, BEFORE))
    assert shells == {} and suspensions.is_suspended(pushed, "alice")
    monkeypatch.setattr(key_files.Batch, "stage", stage)
    set_keys.set_keys(pushed, request(3, BEFORE))
    assert shells["alice"] == str(pushed.paths.login_shell)


def test_z3_a_release_that_was_interrupted_is_finished_by_reconcile(pushed: Host, shells: dict[str, str]) -> None:
    suspensions.suspend(pushed, "alice", 1)
    withheld.release_due(pushed)
    assert shells["alice"] == str(pushed.paths.login_shell) and not suspensions.is_suspended(pushed, "alice")


def test_z3_a_damaged_mark_keeps_the_person_out(pushed: Host, tmp_path: Path) -> None:
    suspensions.suspend(pushed, "alice", 1)
    (pushed.paths.state / "suspended/alice.json").write_text("{")
    set_keys.set_keys(pushed, request(9, BEFORE))
    assert everywhere(pushed, "alice", ed25519(1)["blob"]) == [False, False, True]
