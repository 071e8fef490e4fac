"""O3: a user name belongs to a new person, and a server still has the account of the previous one."""

import io
from typing import Any

import pytest
from labhost.container import lifecycle
from labhost.errors import BadRequest, Refused
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import set_keys
from labhost.keys.public_keys import as_entry, digest_of
from labhost.people import registration
from labhost.system.progress import Progress

from tests.hostscripts import hosts
from tests.hostscripts.conftest import BEFORE, changes, inside, outside, register_file, request
from tests.hostscripts.public_keys import ed25519

NEWCOMER = {"alice": hosts.SUBUID + 65536, "bob": hosts.SUBUID}
AFTER = BEFORE | {"alice": [ed25519(3)]}


@pytest.fixture(params=["everybody", "changes"])
def push(request: pytest.FixtureRequest) -> dict[str, Any]:
    return _push(2, BEFORE, AFTER, request.param)


def _push(revision: int, before: dict[str, Any], after: dict[str, Any], how: str) -> dict[str, Any]:
    made = request(revision, after) if how == "everybody" else changes(revision, before, after)
    return made | {"ids": {name: NEWCOMER[name] for name in made["ids"]}}


def test_o3_a_new_persons_keys_are_not_written_and_the_old_ones_are_removed(
    host: Host, people: dict[str, User], push: dict[str, Any]
) -> None:
    set_keys.set_keys(host, request(1, BEFORE))
    assert outside(host, "alice").read_text() and inside(host, "alice").read_text()
    answer = set_keys.set_keys(host, push)
    result = answer["users"]["alice"]
    assert (result["host"], result["container"]) == ("failed", "failed")
    assert result["error"] == {"reason": "other_person", "params": {"name": "alice"}}
    assert answer["error"]["code"] == "partial" and answer["digest"] == digest_of(AFTER)
    assert outside(host, "alice").read_text() == inside(host, "alice").read_text() == ""
    assert ed25519(2)["blob"] in outside(host, "bob").read_text(), "the others get their keys"


@pytest.mark.parametrize("how", ["everybody", "changes"])
def test_o3_a_later_change_of_another_person_does_not_write_them(host: Host, people: dict[str, User], how: str) -> None:
    set_keys.set_keys(host, _push(2, BEFORE, AFTER, "everybody"))
    later = AFTER | {"bob": [ed25519(4)]}
    answer = set_keys.set_keys(host, _push(3, AFTER, later, how))
    assert answer["users"]["alice"]["host"] == "failed" and outside(host, "alice").read_text() == ""
    assert ed25519(4)["blob"] in outside(host, "bob").read_text()


def test_o3_a_bad_entry_does_not_leave_the_old_keys(host: Host, people: dict[str, User]) -> None:
    set_keys.set_keys(host, request(1, BEFORE))
    after = AFTER | {"alice": [{"type": "ssh-ed25519", "blob": "AAAA", "comment": ""}]}
    set_keys.set_keys(host, _push(2, BEFORE, after, "everybody"))
    assert outside(host, "alice").read_text() == "" and "register.bash alice" not in register_file_of(host)


def register_file_of(host: Host) -> str:
    return register_file(host.paths.home.parent).read_text()


def test_o3_after_the_old_account_is_removed_the_new_persons_keys_are_written(
    host: Host, people: dict[str, User], push: dict[str, Any]
) -> None:
    set_keys.set_keys(host, push)
    people["alice"].subuid = NEWCOMER["alice"]
    assert set_keys.current_keys(host, people["alice"]) == set_keys.judge_entries(AFTER["alice"])[0]


def test_o3_no_other_verb_writes_the_new_persons_keys_to_the_old_account(
    host: Host, people: dict[str, User], push: dict[str, Any]
) -> None:
    """Registrations that end later, rebuilt containers and `doctor --fix` take the keys from here."""
    alice = people["alice"]
    alice.keys, alice.keys_revision = [ed25519(1)], 2
    assert [as_entry(key) for key in set_keys.current_keys(host, alice)] == [ed25519(1)]
    set_keys.set_keys(host, push)
    assert set_keys.current_keys(host, alice) == ()


def test_o3_registering_does_not_lead_into_the_old_container(
    host: Host, people: dict[str, User], push: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration.linux_accounts, "refuse_unmanaged", lambda *_: None)
    set_keys.set_keys(host, push)
    with pytest.raises(Refused, match="somebody else of that name; remove it first: ask the lab's staff"):
        registration.register(host, "alice", Progress(io.StringIO()))


def test_o3_a_start_of_the_old_container_does_not_take_the_new_persons_port(
    host: Host, people: dict[str, User], push: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = people["alice"], people["bob"]
    alice.port, bob.port = 22031, 22032
    values = {"alice": (22041, {"memory": "1G"}), "bob": (22042, {"memory": "2G"})}
    monkeypatch.setattr(lifecycle.client, "fetch_values", lambda _, name: values[name])
    set_keys.set_keys(host, push)
    output = io.StringIO()
    for user in (alice, bob):
        lifecycle._refresh(host, user, Progress(output))
    assert (alice.port, alice.limits) == (22031, {}) and "alice is another person now" in output.getvalue()
    assert (bob.port, bob.limits) == (22042, {"memory": "2G"}), "staff can change a person's port"


def test_keys_without_an_owner_are_not_applied(host: Host, people: dict[str, User]) -> None:
    answer = set_keys.set_keys(host, request(2, AFTER) | {"ids": {"bob": hosts.SUBUID}})
    assert answer["users"]["alice"]["error"] == {"reason": "owner_missing", "params": {}}


@pytest.mark.parametrize("ids", [None, [], {"alice": "1"}, {"alice": True}, {"alice": -1}, {"alice": 2**32}], ids=str)
def test_invalid_ids_are_a_bad_request(host: Host, ids: object) -> None:
    with pytest.raises(BadRequest, match="ids"):
        set_keys.set_keys(host, request(2, AFTER) | {"ids": ids})
