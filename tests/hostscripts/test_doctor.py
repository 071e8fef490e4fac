"""The checks of labhost doctor, on prepared states: a healthy one gives nothing, each problem gives one finding."""

import pwd
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labhost.accounts import linux_accounts, tombstones
from labhost.admin.doctor import checks, fixes
from labhost.admin.doctor.checks import Finding
from labhost.admin.doctor.inspection import Entry, PersonState, ServerState
from labhost.host import user_state
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.network import firewall
from labhost.people import registration

from tests.hostscripts import hosts

START = 1000000000


def alice(**changes: Any) -> User:
    values = {"uid": 1001, "gid": 1001, "account": "created", "port": 22001, "subuid": START, "address": "10.0.3.10"}
    return User("alice", **{**values, "registered": True, "desired_state": "running", **changes})


def healthy(host: Host, **changes: Any) -> PersonState:
    right = PersonState(
        alice(),
        name_taken=True,
        has_account=True,
        shell="/public/login.bash",
        password="*",
        groups=frozenset({"sudo", "lab-iam"}),
        folders={"/home/alice": Entry("dir", 0, 0o755)},
        keys=Entry("file", 0, 0o644, "key\n"),
        keys_wanted="key\n",
        config=Entry("file", 0, 0o644, "config\n"),
        config_wanted="config\n",
        has_system=True,
        attached=True,
        running=True,
        addresses=("10.0.3.10",),
        portal_values=(22001, START),
        portal_keys=frozenset({"key"}),
        current_keys=frozenset({"key"}),
    )
    return replace(right, **changes)


def server(host: Host, *people: PersonState, **changes: Any) -> ServerState:
    block = f"alice:{START}:65536\nbob:2000000000:65536\n"
    right = ServerState(
        host,
        list(people),
        subuid=block,
        subgid=block,
        usernet="# kept\nalice veth lxc-u1001 1\n",
        register=Entry("file", 0, 0o644, "register\n"),
        register_wanted="register\n",
        jumps={ours for _, _, ours in firewall.JUMPS},
    )
    return replace(right, **changes)


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, [str(item) for item in found]
    return found[0]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return hosts.make(tmp_path)


def test_a_healthy_server_has_no_findings(host: Host) -> None:
    assert checks.run_checks(server(host, healthy(host))) == []


PERSON: dict[str, tuple[dict[str, Any], str, str]] = {
    "shell": ({"shell": "/bin/bash"}, "login shell is /bin/bash", "shell"),
    "password": ({"password": "$6$x"}, "has a password", "password"),
    "groups": ({"groups": frozenset({"lab-iam"})}, "group sudo", "groups"),
    "account": ({"has_account": False, "name_taken": False}, "account is missing", "register"),
    "taken": ({"has_account": False}, "not created by labhost", ""),
    "folder": ({"folders": {"/home/alice": Entry("dir", 1001, 0o755)}}, "owner or mode", "folder"),
    "mode": ({"folders": {"/home/alice": Entry("dir", 0, 0o775)}}, "owner or mode", "folder"),
    "link": ({"folders": {"/home/alice": Entry("other", 0, 0o777)}}, "not a folder", ""),
    "missing": ({"folders": {"/home/alice": Entry()}}, "missing", "folder"),
    "keys": ({"keys": Entry("file", 0, 0o644, "evil\n")}, "keys on the server", "keys"),
    "keys-mode": ({"keys": Entry("file", 0, 0o666, "key\n")}, "keys on the server", "keys"),
    "inside": ({"container_keys_ok": False}, "keys in the container", "keys"),
    "portal-keys": ({"portal_keys": frozenset()}, "portal has other keys", ""),
    "files": ({"has_system": False}, "files are missing", ""),
    "mount": ({"attached": False}, "not mounted", "attach"),
    "config": ({"config": Entry("file", 0, 0o644, "x\n")}, "configuration", "config"),
    "quota": ({"disk_enforced": False}, "the disk limit is not set", "quota"),
    "leftovers": ({"leftovers": ("rootfs.new-1",)}, "left by an interrupted command", "leftovers"),
    "crashed": ({"running": False}, "should be running", "start"),
    "unwanted": ({"user": alice(desired_state="stopped")}, "should be stopped", "stop"),
    "shared": ({"on_bridge": False}, "not on a bridge of its own", ""),
    "address": ({"addresses": ("10.0.3.99",)}, "10.0.3.99 instead of 10.0.3.10", ""),
    "port": ({"portal_values": (22002, START)}, "22002 at the portal", "port"),
    "ids": ({"portal_values": (22001, 5)}, "at 5 at the portal", ""),
    "removal": ({"user": alice(registered=False, removal="purge")}, "removal was interrupted", "remove"),
}


@pytest.mark.parametrize("kind", PERSON)
def test_each_problem_of_a_person_is_one_line_with_its_fix(host: Host, kind: str) -> None:
    changes, words, fix = PERSON[kind]
    item = only(checks.run_checks(server(host, healthy(host, **changes))))
    assert item.name == "alice" and words in item.problem and item.fix == fix and item.advice
    assert str(item).count("\n") == 0 and ("; by hand: " in str(item)) == (fix == "")


SERVER: dict[str, tuple[dict[str, Any], str, str]] = {
    "damaged": ({"damaged": ["bob"]}, "journal cannot be read", "adopt"),
    "orphan": ({"orphans": ["bob"]}, "no journal", "adopt"),
    "untrusted": ({"untrusted": ["/public/login.bash"]}, "/public/login.bash", "permissions"),
    "unfit": ({"unfit": "the bridge lxcbr0 does not exist"}, "bridge", ""),
    "cut": ({"keys_complete": False}, "push of keys was interrupted", ""),
    "register": ({"register": Entry("file", 0, 0o644, "")}, "authorized_keys of register", "register_keys"),
    "kept": ({"removed_files": Entry("dir", 0, 0o755)}, "files of removed people", "removed_files"),
    "snapshots": ({"strange_snapshots": ["/nas/gpu17/alice"]}, "/nas/gpu17/alice is not the private folder", ""),
    "no-nas": ({"no_snapshots": "the snapshot folder /nas/gpu17 is missing"}, "/nas/gpu17 is missing", ""),
    "leftovers": ({"temporary": ["/etc/lxc/.x.lab-iam-new"]}, "left by an interrupted write", "temporary_file"),
    "rule": ({"rules": frozenset({"-A LAB-IAM-PRE -j ACCEPT"})}, "1 unexpected", "rules"),
    "no-rule": ({"rules_wanted": frozenset({"-A LAB-IAM-PRE -j ACCEPT"})}, "1 missing", "rules"),
    "jump": ({"jumps": frozenset()}, "7 chains not in use", "rules"),
    "low": ({"low_disks": {"/home": "1 GB free"}}, "/home is almost full: 1 GB free;", ""),
    "unsafe": ({"state_is_safe": False}, "containers can fill the disk", ""),
    "holes": ({"state_is_whole": False}, "has holes", "state_image"),
    "shared": ({"usernet": "alice veth lxcbr0 1\n"}, "one link to their bridge", "usernet"),
    "bridge": ({"bridges": ["the bridge lxc-u1001 is wrong: route"]}, "lxc-u1001", "bridges"),
    "guard": ({"guarded": False}, "filters", "bridges"),
    "sysctl": ({"weak_source_check": True}, "rp_filter", ""),
    "n9-ssh": ({"occupied": {22001}}, "listens on their port 22001; it is not reached", ""),
    "removed": ({"removed": [tombstones.Tombstone("zoe")], "usernet": "alice veth lxc-u1001 1\nzoe veth lxc-u1002 1\n"}, "zoe", "usernet"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SERVER)
def test_each_problem_of_a_server_is_one_line_with_its_fix(host: Host, kind: str) -> None:
    changes, words, fix = SERVER[kind]
    item = only(checks.run_checks(server(host, healthy(host), **changes)))
    assert words in str(item) and item.fix == fix


def test_z1_people_who_use_most_of_a_full_disk_are_named(host: Host) -> None:
    found = server(host, healthy(host, disk_used=3 << 30), low_disks={str(host.paths.home): "1 GB free"})
    assert "1 GB free (most used by alice 3 GB)" in str(only(checks.run_checks(found)))


def test_n9_a_forwarded_port_on_which_the_server_listens_is_found(host: Host) -> None:
    person = healthy(host, user=alice(forwards=[[80, 30123], [81, 30124]]))
    item = only(checks.run_checks(server(host, person, occupied={30123, 443})))
    assert (item.name, item.fix) == ("alice", "") and "port 30123; the port is not forwarded" in item.problem


def test_the_order_of_a_rules_options_does_not_count(host: Host) -> None:
    found, wanted = (
        "-A LAB-IAM-FWD -d 10.0.3.10/32 -o lxcbr0 -j ACCEPT",
        "-A LAB-IAM-FWD -o lxcbr0 -d 10.0.3.10/32 -j ACCEPT",
    )
    state = server(host, healthy(host), rules=frozenset({found}), rules_wanted=frozenset({wanted}))
    assert checks.run_checks(state) == []


def test_c4_an_overlap_in_subuid_is_left_to_a_human(host: Host) -> None:
    item = only(checks.run_checks(server(host, healthy(host), subuid=f"alice:{START}:65536\nbob:{START + 9}:10\n")))
    assert "assigns some of the same ids to bob" in item.problem and item.fix == ""


def test_missing_and_different_blocks_of_ids_are_found(host: Host) -> None:
    assert only(checks.run_checks(server(host, healthy(host), subgid=""))).fix == "subids"
    item = only(checks.run_checks(server(host, healthy(host), subuid="alice:5000000:65536\n")))
    assert "wrong subordinate ids" in item.problem and item.fix == ""


def test_a_shared_address_is_found(host: Host) -> None:
    bob = healthy(
        host, user=replace(alice(), name="bob", subuid=2000000000, port=22002), portal_values=(22002, 2000000000)
    )
    found = server(host, healthy(host), bob, usernet="alice veth lxc-u1001 1\nbob veth lxc-u1001 1\n")
    assert "alice has the same address" in only(checks.run_checks(found)).problem


def test_the_rules_are_not_checked_while_a_journal_is_damaged(host: Host) -> None:
    """Then it is unknown which containers run, so an unexpected rule may be right."""
    found = server(host, damaged=["alice"], rules=frozenset({"-A LAB-IAM-PRE -j ACCEPT"}))
    assert only(checks.run_checks(found)).fix == "adopt"


def test_z11_a_new_journal_has_the_ids_of_the_account_and_not_of_a_newcomer(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.paths.subuid.write_text(f"bob:{START + 65536}:65536\nalice:{START}:65536\n")
    monkeypatch.setattr(linux_accounts, "passwd", lambda _: pwd.getpwnam("nobody"))
    monkeypatch.setattr(linux_accounts, "refuse_unmanaged", lambda *_: None)
    monkeypatch.setattr(registration, "register", lambda *_: None)  # it refuses other ids than those of the portal
    fixes.apply(host, Finding("alice", "", "", "adopt"))
    user = user_state.load_user(host, "alice")
    assert user is not None and user.subuid == START


def test_every_fix_belongs_to_a_finding() -> None:
    named = {fix for _, _, fix in (*PERSON.values(), *SERVER.values()) if fix}
    assert {*named, "subids"} == set(fixes.FIXES)
