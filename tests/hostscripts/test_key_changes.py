"""A push of changes: applied only to the state that it is for."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from labhost.errors import BadRequest, OtherBase, StaleRevision
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import applied_keys, key_files, set_keys
from labhost.keys.public_keys import KeyMap, digest_of
from labhost.system import openat2

from tests.hostscripts import hosts
from tests.hostscripts.conftest import (
    AFTER,
    BEFORE,
    SCRIPTS,
    changes,
    inside,
    live_keys,
    outside,
    register_file,
    request,
)
from tests.hostscripts.public_keys import ed25519


def test_pushing_changes_writes_the_same_files_as_pushing_everything(host: Host, tmp_path: Path) -> None:
    answer = set_keys.set_keys(host, changes(2, BEFORE, AFTER))
    assert answer["ok"] and (answer["revision"], answer["digest"]) == (2, digest_of(AFTER))
    assert sorted(answer["users"]) == ["alice", "bob", "carol"]
    text = register_file(tmp_path).read_text()
    other = tmp_path / "other"
    other.mkdir()
    set_keys.set_keys(hosts.make(other), request(2, AFTER))
    assert text == register_file(other).read_text()
    assert applied_keys.load(host).digest == digest_of(AFTER)


def test_y10_the_answer_does_not_grow_with_the_number_of_people(tmp_path: Path) -> None:
    many = {f"user{number}": [ed25519(number + 10)] for number in range(500)}
    host, before, after = hosts.make(tmp_path), BEFORE | many, AFTER | many
    set_keys.set_keys(host, request(1, before))
    answer = set_keys.set_keys(host, changes(2, before, after))
    assert sorted(answer["users"]) == ["alice", "bob", "carol"] and len(json.dumps(answer)) < 1000


def test_no_changes_write_nothing(host: Host, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} | {
        register_file(tmp_path): register_file(tmp_path).stat().st_mtime_ns
    }
    answer = set_keys.set_keys(host, changes(1, BEFORE, BEFORE))
    assert answer["ok"] and answer["users"] == {} and answer["register"] == "unchanged"
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize(
    "other",
    [
        {"base": "0" * 64},
        {"digest": "0" * 64},
        {"changes": {"carol": [ed25519(4)]}},
        {"changes": {"alice": [ed25519(1), ed25519(3)], "bob": None, "carol": "nonsense"}},
        {"changes": {"alice": [ed25519(1), ed25519(3)], "bob": None, "carol": [ed25519(4)], "root": [ed25519(5)]}},
    ],
    ids=range(5),
)
def test_changes_to_another_base_are_refused(host: Host, tmp_path: Path, other: dict[str, Any]) -> None:
    text = register_file(tmp_path).read_text()
    with pytest.raises(OtherBase):
        set_keys.set_keys(host, changes(2, BEFORE, AFTER, **other))
    assert register_file(tmp_path).read_text() == text and applied_keys.load(host).revision == 1


def test_k10_a_changed_person_cannot_take_a_key_of_one_who_did_not_change(host: Host) -> None:
    after = BEFORE | {"carol": [ed25519(1)]}
    with pytest.raises(OtherBase):
        set_keys.set_keys(host, changes(2, BEFORE, after))


@pytest.mark.parametrize("wrong", [{"base": 5}, {"changes": []}, {"changes": None}, {"revision": True}], ids=str)
def test_inconsistent_changes_are_a_bad_request(host: Host, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        set_keys.set_keys(host, changes(2, BEFORE, AFTER) | wrong)


def test_y4_an_older_revision_or_another_state_of_the_same_one_is_refused(host: Host) -> None:
    with pytest.raises(StaleRevision):
        set_keys.set_keys(host, changes(0, BEFORE, AFTER))
    for again in (changes(1, BEFORE, AFTER), request(1, AFTER)):
        with pytest.raises(StaleRevision, match="other keys"):
            set_keys.set_keys(host, again)


def test_the_memory_of_a_replaced_database_is_dropped(host: Host) -> None:
    memory = set_keys.Memory()
    set_keys.set_keys(host, changes(2, BEFORE, AFTER), memory)
    set_keys.set_keys(host, request(3, BEFORE))  # another session
    with pytest.raises(OtherBase):
        set_keys.set_keys(host, changes(4, AFTER, BEFORE), memory)
    assert set_keys.set_keys(host, changes(4, BEFORE, AFTER), memory)["ok"]


@pytest.mark.parametrize("few", [key_files.FEW, 0], ids=["few", "many"])
def test_both_files_of_each_person_are_written_once(
    host: Host, people: dict[str, User], monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(key_files, "FEW", few)
    answer = set_keys.set_keys(host, request(1, BEFORE))
    assert answer["users"]["alice"] == {"host": "written", "container": "written", "error": None}
    assert outside(host, "alice").read_text().startswith("restrict,pty ssh-ed25519 ")
    assert inside(host, "bob").read_text() == " ".join((ed25519(2)["type"], ed25519(2)["blob"], "laptop 2")) + "\n"
    again = set_keys.set_keys(host, request(1, BEFORE))
    assert again["users"]["alice"] == {"host": "unchanged", "container": "unchanged", "error": None}
    assert not list(host.paths.home.rglob(".authorized_keys*"))


@pytest.mark.parametrize("few", [key_files.FEW, 0], ids=["few", "many"])
def test_y8_a_person_with_a_blocked_file_fails_alone_and_is_retried_with_the_next_change(
    host: Host, people: dict[str, User], monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(key_files, "FEW", few)
    folder = inside(host, "bob").parent
    folder.symlink_to("/tmp")
    after = BEFORE | {"alice": [ed25519(3)]}
    answer = set_keys.set_keys(host, request(2, BEFORE))
    assert answer["users"]["bob"]["container"] == "failed" and answer["users"]["bob"]["error"]["reason"]
    assert answer["users"]["alice"]["container"] == "written" and answer["error"]["code"] == "partial"
    answer = set_keys.set_keys(host, changes(3, BEFORE, after))
    assert answer["users"]["bob"]["container"] == "failed", "the failed person is retried"
    folder.unlink()
    answer = set_keys.set_keys(host, changes(3, after, after))
    assert answer["ok"] and answer["users"] == {"bob": {"host": "unchanged", "container": "written", "error": None}}
    assert applied_keys.load(host).failed == []


def test_y8_a_damaged_file_of_one_person_does_not_stop_the_others(host: Host, people: dict[str, User]) -> None:
    (host.paths.state / "users/bob.json").write_text("{")
    answer = set_keys.set_keys(host, request(2, BEFORE))
    assert answer["users"]["bob"]["host"] == "failed" and answer["users"]["alice"]["host"] == "written"


def test_z1_a_damaged_file_of_a_person_does_not_keep_their_removed_key(host: Host, people: dict[str, User]) -> None:
    set_keys.set_keys(host, request(2, BEFORE | {"bob": [ed25519(2), ed25519(5)]}))
    (host.paths.state / "users/bob.json").write_text("{")
    answer = set_keys.set_keys(host, request(3, BEFORE))
    assert answer["users"]["bob"]["host"] == "failed" and live_keys(outside(host, "bob")) == {2}


def test_y6_z1_when_the_disk_refuses_to_sync_keys_are_only_taken_away(
    host: Host, people: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_files, "FEW", 0)
    set_keys.set_keys(host, request(1, BEFORE))
    kept = outside(host, "bob").stat().st_mtime_ns

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    after = BEFORE | {"alice": [ed25519(3)]}
    with monkeypatch.context() as patch:
        patch.setattr(openat2, "sync_file_system", full)
        answer = set_keys.set_keys(host, request(2, after))
    assert answer["error"]["reason"] == "people_failed"
    assert answer["users"]["alice"]["host"] == "failed" and answer["users"]["alice"]["error"]["reason"] == "disk_full"
    assert outside(host, "alice").read_text().startswith("#") and live_keys(outside(host, "alice")) == set()
    assert outside(host, "bob").stat().st_mtime_ns == kept and answer["users"]["bob"]["error"] is None
    assert set_keys.set_keys(host, request(2, after))["ok"]
    assert live_keys(outside(host, "alice")) == {3} and not list(host.paths.home.rglob(".authorized_keys*"))


KILLED = """
import json, os, sys
sys.path[:0] = sys.argv[1:2]
from pathlib import Path
from labhost.accounts import linux_accounts
from labhost.host import config
from labhost.host.config import Host, Paths
from labhost.keys import key_files, set_keys
import pwd
folder, pushes = Path(sys.argv[2]), json.loads(sys.argv[3])
values = config.read_values((folder / "host.conf").read_text())
linux_accounts.entry_of = lambda host, user, known=None: pwd.getpwuid(os.geteuid())
key_files._HOST_OWNER = (os.geteuid(), os.getegid())
key_files.FEW = int(sys.argv[4])
host = Host(config.parse(values), Paths(state=folder / "state", home=folder / "home"))
for push in pushes:
    set_keys.set_keys(host, push)
"""


@pytest.mark.parametrize("moment", ["keys-noted", "keys-staged", "keys-written"])
@pytest.mark.parametrize("few", [key_files.FEW, 0], ids=["few", "many"])
def test_y3_killed_during_a_push_files_are_whole_and_a_full_push_completes_it(
    host: Host, people: dict[str, User], tmp_path: Path, moment: str, few: int
) -> None:
    from labhost.host import config

    (tmp_path / "host.conf").write_text(config.render(hosts.VALUES))
    set_keys.set_keys(host, request(1, BEFORE))
    after = BEFORE | {"alice": [ed25519(3)]}
    words = [
        sys.executable,
        "-c",
        KILLED,
        str(SCRIPTS),
        str(tmp_path),
        json.dumps([changes(2, BEFORE, after)]),
        str(few),
    ]
    env = {key: value for key, value in os.environ.items() if key != "SUDO_UID"} | {"LABHOST_FAILPOINT": moment}
    assert subprocess.run(words, env=env, timeout=30).returncode == -signal.SIGKILL
    old, new = (KeyMap(alice=set_keys.judge_entries([ed25519(n)])[0]).render_register() for n in (1, 3))
    assert register_file(tmp_path).read_text().splitlines()[0] + "\n" in (old, new)
    assert outside(host, "alice").read_text().count("\n") == 1
    with pytest.raises(StaleRevision):
        set_keys.set_keys(host, request(1, BEFORE))
    with pytest.raises(OtherBase):
        set_keys.set_keys(host, changes(3, after, BEFORE))
    assert set_keys.set_keys(host, request(2, after))["ok"]
    assert ed25519(3)["blob"] in outside(host, "alice").read_text() and applied_keys.load(host).complete
    assert not list(host.paths.home.rglob(".authorized_keys*"))
