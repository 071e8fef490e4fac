"""A push replaces exactly the revision that it names, and otherwise only takes keys away."""

from pathlib import Path
from typing import Any

import pytest
from labhost.admin import portal_requests
from labhost.errors import BadRequest, OtherBase, OtherHistory, StaleRevision
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import applied_keys, set_keys
from labhost.keys.public_keys import judge_entries
from labhost.system import failpoints

from tests.hostscripts.conftest import AFTER, BEFORE, changes, outside, register_file, request
from tests.hostscripts.public_keys import ed25519

A, B, C = "a" * 32, "b" * 32, "c" * 32


def step(revision: int, users: dict[str, Any], own: str, previous: str) -> dict[str, Any]:
    return request(revision, users) | {"id": own, "previous": previous}


def take(previous: str, **keys: list[str]) -> dict[str, Any]:
    return {"version": 1, "previous": previous, "take_away": keys}


def fingerprint(seed: int) -> str:
    (key,) = judge_entries([ed25519(seed)])[0]
    return key.fingerprint


@pytest.fixture
def applied(host: Host) -> Host:
    """Revision 5 with the id A and the keys of BEFORE."""
    set_keys.set_keys(host, step(5, BEFORE, A, ""))
    return host


def test_z5_only_a_push_that_replaces_what_is_applied_is_applied(applied: Host, tmp_path: Path) -> None:
    text = register_file(tmp_path).read_text()
    for push in (step(6, AFTER, C, B), step(6, AFTER, C, ""), step(5, AFTER, C, B), request(9, AFTER)):
        with pytest.raises(OtherHistory) as refused:
            set_keys.set_keys(applied, push)
        assert refused.value.as_json() == {"reason": "other_history", "params": {"revision": 5, "id": A}}
    assert register_file(tmp_path).read_text() == text and applied_keys.load(applied).id == A
    answer = set_keys.set_keys(applied, step(6, AFTER, B, A))
    assert answer["ok"] and answer["id"] == B and applied_keys.load(applied).users.keys() == AFTER.keys()


def test_the_same_push_again_is_accepted(applied: Host) -> None:
    assert set_keys.set_keys(applied, step(5, BEFORE, A, ""))["ok"]
    with pytest.raises(OtherHistory):
        set_keys.set_keys(applied, step(6, BEFORE, A, ""))


def test_a_push_without_an_id_does_not_replace_one_that_has_one(applied: Host) -> None:
    with pytest.raises(OtherHistory):
        set_keys.set_keys(applied, step(6, AFTER, "", A))


def test_changes_follow_the_same_rule(applied: Host) -> None:
    with pytest.raises(OtherHistory):
        set_keys.set_keys(applied, changes(6, BEFORE, AFTER, id=C, previous=B))
    assert set_keys.set_keys(applied, changes(6, BEFORE, AFTER, id=B, previous=A))["ok"]


def test_z6_the_number_may_fall_and_what_is_late_is_refused(applied: Host) -> None:
    assert set_keys.set_keys(applied, step(2**53, BEFORE, B, A))["ok"]
    assert set_keys.set_keys(applied, step(6, AFTER, C, B))["ok"]
    assert applied_keys.load(applied).revision == 6
    for late in (step(2**53, BEFORE, B, A), step(5, BEFORE, A, ""), step(7, BEFORE, "d" * 32, A)):
        with pytest.raises(OtherHistory):
            set_keys.set_keys(applied, late)


def test_y4_without_ids_the_number_decides(host: Host) -> None:
    with pytest.raises(StaleRevision):
        set_keys.set_keys(host, request(0, BEFORE))
    with pytest.raises(StaleRevision):
        set_keys.set_keys(host, step(0, BEFORE, A, B))


def test_z5_keys_are_taken_away_and_none_is_added(applied: Host, people: dict[str, User]) -> None:
    set_keys.set_keys(applied, step(6, {"alice": [ed25519(1), ed25519(2)], "bob": [ed25519(3)]}, B, A))
    answer = set_keys.set_keys(applied, take(B, alice=[fingerprint(2)], carol=[fingerprint(4)]))
    assert answer["ok"] and answer["revision"] == 6 and answer["id"] not in (A, B) and len(answer["id"]) == 32
    assert answer["users"]["alice"]["host"] == "written"
    found = applied_keys.load(applied)
    assert {name: len(keys) for name, keys in found.users.items()} == {"alice": 1, "bob": 1, "carol": 0}
    assert found.id == answer["id"] and found.digest == answer["digest"] and found.complete
    assert outside(applied, "alice").read_text().count("\n") == 1
    again = set_keys.set_keys(applied, take(found.id, alice=[fingerprint(2)], carol=[]))
    assert again["id"] == found.id and applied_keys.load(applied) == found


def test_y4_nothing_is_taken_away_from_another_state(applied: Host) -> None:
    for previous in (B, ""):
        with pytest.raises(OtherHistory):
            set_keys.set_keys(applied, take(previous, alice=[fingerprint(1)]))
    assert len(applied_keys.load(applied).users["alice"]) == 1


def test_z5_a_late_push_of_the_applied_revision_brings_nothing_back(applied: Host) -> None:
    set_keys.set_keys(applied, take(A, alice=[fingerprint(1)]))
    with pytest.raises(OtherHistory):
        set_keys.set_keys(applied, step(5, BEFORE, A, ""))
    assert applied_keys.load(applied).users["alice"] == ()


def test_z5_the_keys_of_a_registration_do_not_count_after_a_removal(applied: Host) -> None:
    carol = User("carol", keys=[ed25519(4)], keys_revision=5)
    assert len(set_keys.current_keys(applied, carol)) == 1
    set_keys.set_keys(applied, take(A, carol=[]))
    assert set_keys.current_keys(applied, carol) == ()


def test_y3_a_removal_that_was_killed_is_done_by_the_next(
    applied: Host, people: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(point: str) -> None:
        if point == "keys-noted":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "hit", die)
        with pytest.raises(KeyboardInterrupt):
            set_keys.set_keys(applied, take(A, alice=[fingerprint(1)]))
    found = applied_keys.load(applied)
    assert found.id not in ("", A) and not found.complete
    with pytest.raises(OtherBase):
        set_keys.set_keys(applied, changes(6, BEFORE, AFTER, id=B, previous=found.id))
    set_keys.set_keys(applied, take(found.id, alice=[fingerprint(1)]))
    assert outside(applied, "alice").read_text() == ""


@pytest.mark.parametrize(
    "fields",
    [{"id": 5}, {"id": "A" * 32}, {"id": "a" * 31}, {"previous": None}, {"previous": "a" * 33}, {"previous": ["a"]}],
)
def test_a_hostile_id_is_refused(host: Host, fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        set_keys.set_keys(host, request(9, AFTER) | fields)


@pytest.mark.parametrize("keys", [None, [], {"alice": "x"}, {"alice": [1]}, {"../x": []}, {"root": []}])
def test_a_hostile_removal_is_refused(applied: Host, keys: object) -> None:
    with pytest.raises(BadRequest):
        set_keys.set_keys(applied, {"version": 1, "previous": A, "take_away": keys})


def test_the_status_has_the_id_and_if_asked_for_the_keys(applied: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labhost.gpu.nvidia.host_version", lambda _: "")
    status = portal_requests.describe(applied, {"version": 1})
    assert (status["revision"], status["id"]) == (5, A) and "keys" not in status
    asked = portal_requests.describe(applied, {"version": 1, "keys": True})
    assert asked["keys"] == {"alice": [fingerprint(1)], "bob": [fingerprint(2)]}


def test_the_files_of_everybody_else_stay(applied: Host, people: dict[str, User]) -> None:
    set_keys.set_keys(applied, step(6, BEFORE, B, A))
    before = {name: outside(applied, name).read_text() for name in people}
    set_keys.set_keys(applied, take(B, bob=[fingerprint(2)]))
    assert outside(applied, "alice").read_text() == before["alice"] and outside(applied, "bob").read_text() == ""
