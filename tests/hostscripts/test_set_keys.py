"""A push of everybody's keys to a server in a folder."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from labhost.errors import BadRequest, OtherBase, StaleRevision
from labhost.host.user_state import User
from labhost.keys import applied_keys, public_keys, push_request, set_keys
from labhost.keys.public_keys import as_entry
from labhost.system import log, openat2

from tests.hostscripts import hosts
from tests.hostscripts.conftest import SCRIPTS, changes, live_keys, register_file, request
from tests.hostscripts.public_keys import ed25519, rsa


def test_the_register_file_holds_everybodys_keys(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    answer = set_keys.set_keys(host, request(12, {"bob": [ed25519(2)], "alice": [ed25519(1)], "carol": []}))
    assert answer["ok"] and answer["revision"] == 12 and answer["register"] == "written"
    assert answer["users"]["alice"] == {"host": "absent", "container": "absent", "error": None}
    lines = register_file(tmp_path).read_text().splitlines()
    assert [line.split('"')[1].split()[1] for line in lines] == ["alice", "bob"]
    assert all(line.startswith("restrict,command=") for line in lines)


def test_y10_the_same_push_again_writes_nothing(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    push = request(12, {"alice": [ed25519()]})
    set_keys.set_keys(host, push)
    before = {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "locks"
    }
    answer = set_keys.set_keys(host, push)
    assert answer["ok"] and answer["register"] == "unchanged"
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_y4_an_older_revision_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    set_keys.set_keys(host, request(12, {"alice": [ed25519(1)]}))
    text = register_file(tmp_path).read_text()
    with pytest.raises(StaleRevision):
        set_keys.set_keys(host, request(11, {"alice": [ed25519(2)]}))
    assert register_file(tmp_path).read_text() == text and applied_keys.load(host).revision == 12


def test_y8_one_bad_entry_fails_alone_and_keeps_its_last_keys(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    set_keys.set_keys(host, request(1, {"alice": [ed25519(1)], "bob": [ed25519(2)]}))
    answer = set_keys.set_keys(host, request(2, {"alice": {"type": "ssh-ed25519"}, "bob": [ed25519(3)]}))
    assert not answer["ok"] and answer["error"]["code"] == "partial"
    assert answer["users"]["alice"]["host"] == "failed" and answer["users"]["alice"]["error"]
    text = register_file(tmp_path).read_text()
    assert ed25519(1)["blob"] in text and ed25519(3)["blob"] in text and ed25519(2)["blob"] not in text
    assert applied_keys.load(host).revision == 2


def test_z4_a_bad_key_costs_that_key_only_and_a_removal_is_applied(tmp_path: Path) -> None:
    host, bad = hosts.make(tmp_path), rsa(1024)
    before = {"alice": [ed25519(1), ed25519(2)], "bob": [ed25519(4)]}
    after = before | {"alice": [ed25519(2), bad, ed25519(3)]}
    set_keys.set_keys(host, request(1, before))
    with pytest.raises(OtherBase) as caught:
        set_keys.set_keys(host, changes(2, before, after))
    assert caught.value.reason == "changes_refused"
    answer = set_keys.set_keys(host, request(2, after))
    fingerprint = public_keys.fingerprint_of(bad["blob"])
    size = {"bits": 1024, "least": public_keys.RSA_LEAST_BITS, "most": public_keys.RSA_MOST_BITS}
    assert answer["users"]["alice"] == {
        "host": "absent",
        "container": "absent",
        "error": {"reason": "key_refused", "params": {"fingerprint": fingerprint, "cause": "key_size", **size}},
        "refused": {fingerprint: {"reason": "key_size", "params": size}},
    }
    assert (answer["error"]["code"], answer["error"]["reason"]) == ("partial", "people_failed")
    assert answer["users"]["bob"]["error"] is None and live_keys(register_file(tmp_path)) == {2, 3, 4}
    mended = after | {"alice": [ed25519(2)]}
    assert set_keys.set_keys(host, request(3, mended))["ok"] and live_keys(register_file(tmp_path)) == {2, 4}


def test_z4_a_comment_of_a_newer_unicode_is_no_fault_and_changes_go_on(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    before = {"alice": [ed25519(1) | {"comment": "\U0001ccd5\u2028\ud800"}, ed25519(2)]}
    after = {"alice": before["alice"][:1]}
    assert set_keys.set_keys(host, request(1, before))["ok"]
    assert set_keys.set_keys(host, changes(2, before, after))["ok"]
    assert live_keys(register_file(tmp_path)) == {1}


@pytest.mark.parametrize("name", ["root", "iam", "register", "-rf", "../x", 'a" ssh-ed25519', "A", "a\n"])
def test_r5_an_invalid_name_gets_no_line(tmp_path: Path, name: str) -> None:
    answer = set_keys.set_keys(hosts.make(tmp_path), request(1, {name: [ed25519(1)], "bob": [ed25519(2)]}))
    assert answer["users"][name]["host"] == "failed"
    assert len(register_file(tmp_path).read_text().splitlines()) == 1


def test_k10_a_key_of_two_people_is_refused_to_both(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    answer = set_keys.set_keys(
        host, request(1, {"alice": [ed25519(1)], "bob": [ed25519(1), ed25519(2)], "carol": [ed25519(3)]})
    )
    assert {
        name: outcome["error"] and outcome["error"]["params"]["cause"] for name, outcome in answer["users"].items()
    } == {
        "alice": "key_shared",
        "bob": "key_shared",
        "carol": None,
    }
    assert live_keys(register_file(tmp_path)) == {2, 3}


def test_k10_a_key_of_two_people_stays_with_the_one_who_had_it(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    set_keys.set_keys(host, request(1, {"alice": [ed25519(1)]}))
    answer = set_keys.set_keys(host, request(2, {"alice": [ed25519(1)], "bob": [ed25519(1)]}))
    assert answer["users"]["alice"]["error"] is None and answer["users"]["bob"]["refused"]
    [line] = register_file(tmp_path).read_text().splitlines()
    assert "register.bash alice" in line


def test_k10_a_failed_person_loses_a_key_that_now_belongs_to_another(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    set_keys.set_keys(host, request(1, {"alice": [ed25519(1)]}))
    set_keys.set_keys(host, request(2, {"alice": "nonsense", "bob": [ed25519(1)]}))
    [line] = register_file(tmp_path).read_text().splitlines()
    assert "register.bash bob" in line


WRONG = [
    {"revision": -1},
    {"revision": True},
    {"revision": "1"},
    {"revision": 2**60},
    {"digest": "0" * 64},
    {"digest": None},
    {"users": []},
    {"users": None},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_an_inconsistent_request_writes_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    host = hosts.make(tmp_path)
    with pytest.raises(BadRequest):
        set_keys.set_keys(host, request(1, {"alice": [ed25519()]}) | change)
    assert not register_file(tmp_path).exists() and not applied_keys.path_of(host).exists()


KILLED = """
import json, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from labhost.host import config
from labhost.host.config import Host, Paths
from labhost.keys import set_keys
folder, push = Path(sys.argv[3]), json.loads(sys.argv[4])
values = config.read_values((folder / "host.conf").read_text())
set_keys.set_keys(Host(config.parse(values), Paths(state=folder / "state", home=folder / "home")), push)
"""


@pytest.mark.parametrize("moment", ["keys-noted", "keys-written"])
def test_y3_y4_after_a_killed_push_an_older_one_is_refused_and_the_same_one_completes(
    tmp_path: Path, moment: str
) -> None:
    from labhost.host import config

    host = hosts.make(tmp_path)
    (tmp_path / "host.conf").write_text(config.render(hosts.VALUES))
    push = request(7, {"alice": [ed25519()]})
    words = [sys.executable, "-c", KILLED, str(SCRIPTS), "", str(tmp_path), json.dumps(push)]
    env = {key: value for key, value in os.environ.items() if key != "SUDO_UID"} | {"LABHOST_FAILPOINT": moment}
    assert subprocess.run(words, env=env, timeout=30).returncode == -signal.SIGKILL
    assert not applied_keys.load(host).complete
    with pytest.raises(StaleRevision):
        set_keys.set_keys(host, request(6, {}))
    assert set_keys.set_keys(host, push)["ok"]
    assert applied_keys.load(host).complete and "alice" in register_file(tmp_path).read_text()


def test_y3_a_registration_that_ends_after_a_push_leaves_the_new_keys(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    alice = User("alice", keys=[ed25519(1)], keys_revision=0)
    assert [as_entry(key) for key in set_keys.current_keys(host, alice)] == [ed25519(1)]
    set_keys.set_keys(host, request(5, {"alice": [ed25519(2)]}))
    assert [as_entry(key) for key in set_keys.current_keys(host, alice)] == [ed25519(2)]


def test_y3_keys_removed_during_a_registration_stay_removed(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    alice = User("alice", keys=[ed25519(1)], keys_revision=0)
    set_keys.set_keys(host, request(5, {"bob": [ed25519(2)]}))
    assert set_keys.current_keys(host, alice) == ()


@pytest.mark.root
def test_y6_with_the_disk_full_the_old_file_is_intact(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", disk], check=True)
    try:
        with openat2.directory(disk) as folder:
            openat2.replace_file(folder, "authorized_keys", "old\n", owner=(0, 0), mode=0o600)
            with pytest.raises(OSError, match="No space left"):
                openat2.replace_file(folder, "authorized_keys", "new\n" * 10_000, owner=(0, 0), mode=0o600)
        assert [path.name for path in disk.iterdir()] == ["authorized_keys"]
        assert (disk / "authorized_keys").read_text() == "old\n"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_p3_any_entry_is_at_most_a_failed_person() -> None:
    """With the right digest of the damaged map, as from a hostile portal. For damage on the way see test_session.py."""
    dice = random.Random(17)
    atoms: list[Any] = [
        None,
        True,
        -1,
        1.5,
        "",
        "x",
        "\ud800",
        "a" * 40,
        [],
        {},
        ed25519(1),
        [ed25519(1)],
        "ssh-rsa",
        "AAAA",
    ]
    for _ in range(20_000):
        entry: Any = dice.choice(atoms)
        for _ in range(dice.randint(0, 3)):
            entry = dice.choice(
                [[entry], {"type": entry, "blob": dice.choice(atoms), "comment": dice.choice(atoms)}, [entry, entry]]
            )
        users = {dice.choice(["alice", "root", "", "A", "\ud800", "x\n"]): entry, "bob": [ed25519(9)]}
        push = push_request.parse(request(1, users))
        assert "bob" in push.users and not set(push.users) & set(push.errors)
        assert set(push.users) | set(push.errors) == set(users)


def test_unknown_fields_of_a_push_are_ignored_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(log, "write", lambda text, **_: warnings.append(text))
    host = hosts.make(tmp_path)
    assert set_keys.set_keys(host, request(1, {"alice": [ed25519()]}) | {"since": 5})["ok"]
    assert warnings == ["set-keys: unknown fields are ignored: since"]
    assert set_keys.set_keys(host, request(2, {}))["ok"] and len(warnings) == 1
