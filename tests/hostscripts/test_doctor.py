"""The doctor's comparisons, on facts of our own: what is right gives nothing, each fault gives one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labhost.accounts import tombstones
from labhost.admin.doctor import checks, fixes
from labhost.admin.doctor.checks import Finding
from labhost.admin.doctor.inspection import Entry, ServerFacts, UserFacts
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.network import firewall

from tests.hostscripts import hosts

START = 1000000000


def alice(**changes: Any) -> User:
    values = {"uid": 1001, "gid": 1001, "account": "created", "port": 22001, "subuid": START, "address": "10.0.3.10"}
    return User("alice", **{**values, "registered": True, "desired_state": "running", **changes})


def healthy(host: Host, **changes: Any) -> UserFacts:
    right = UserFacts(
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
        told=(22001, START),
        told_keys=frozenset({"key"}),
        known_keys=frozenset({"key"}),
    )
    return replace(right, **changes)


def facts(host: Host, *people: UserFacts, **changes: Any) -> ServerFacts:
    block = f"alice:{START}:65536\nbob:2000000000:65536\n"
    right = ServerFacts(
        host,
        list(people),
        subuid=block,
        subgid=block,
        usernet="# kept\nalice veth lxcbr0 1\n",
        register=Entry("file", 0, 0o644, "register\n"),
        register_wanted="register\n",
        jumps=frozenset(ours for _, _, ours in firewall.JUMPS),
    )
    return replace(right, **changes)


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, [str(item) for item in found]
    return found[0]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return hosts.make(tmp_path)


def test_what_is_right_gives_nothing(host: Host) -> None:
    assert checks.run_checks(facts(host, healthy(host))) == []


PERSON: dict[str, tuple[dict[str, Any], str, str]] = {
    "shell": ({"shell": "/bin/bash"}, "login shell is /bin/bash", "shell"),
    "password": ({"password": "$6$x"}, "has a password", "password"),
    "groups": ({"groups": frozenset({"lab-iam"})}, "group sudo", "groups"),
    "account": ({"has_account": False, "name_taken": False}, "account is gone", "register"),
    "taken": ({"has_account": False}, "not the one that labhost made", ""),
    "folder": ({"folders": {"/home/alice": Entry("dir", 1001, 0o755)}}, "not root's alone", "folder"),
    "mode": ({"folders": {"/home/alice": Entry("dir", 0, 0o775)}}, "not root's alone", "folder"),
    "link": ({"folders": {"/home/alice": Entry("other", 0, 0o777)}}, "not a folder", ""),
    "missing": ({"folders": {"/home/alice": Entry()}}, "missing", "folder"),
    "keys": ({"keys": Entry("file", 0, 0o644, "evil\n")}, "keys on the server", "keys"),
    "keys-mode": ({"keys": Entry("file", 0, 0o666, "key\n")}, "keys on the server", "keys"),
    "inside": ({"inside_current": False}, "keys in the container", "keys"),
    "portal-keys": ({"told_keys": frozenset()}, "portal has other keys", ""),
    "files": ({"has_system": False}, "files are gone", ""),
    "mount": ({"attached": False}, "not mounted", "attach"),
    "config": ({"config": Entry("file", 0, 0o644, "x\n")}, "configuration", "config"),
    "leftovers": ({"leftovers": ("rootfs.new-1",)}, "left by a kill", "leftovers"),
    "crashed": ({"running": False}, "does not run", "start"),
    "unwanted": ({"user": alice(desired_state="stopped")}, "runs, though", "stop"),
    "address": ({"addresses": ("10.0.3.99",)}, "10.0.3.99 instead of 10.0.3.10", ""),
    "port": ({"told": (22002, START)}, "portal gives port 22002", "port"),
    "ids": ({"told": (22001, 5)}, "portal gives the ids from 5", ""),
    "removal": ({"user": alice(registered=False, removal="purge")}, "removal was cut off", "remove"),
}


@pytest.mark.parametrize("kind", PERSON)
def test_each_fault_of_a_person_is_one_line_with_its_fix(host: Host, kind: str) -> None:
    changes, words, remedy = PERSON[kind]
    item = only(checks.run_checks(facts(host, healthy(host, **changes))))
    assert item.who == "alice" and words in item.what and item.remedy == remedy and item.fix
    assert str(item).count("\n") == 0 and ("; by hand: " in str(item)) == (remedy == "")


SERVER: dict[str, tuple[dict[str, Any], str, str]] = {
    "damaged": ({"damaged": ["bob"]}, "journal cannot be read", "adopt"),
    "orphan": ({"orphans": ["bob"]}, "no journal", "adopt"),
    "untrusted": ({"untrusted": ["/public/login.bash"]}, "/public/login.bash", "trust"),
    "unfit": ({"unfit": "the bridge lxcbr0 does not exist"}, "bridge", ""),
    "cut": ({"keys_complete": False}, "push of keys was cut off", ""),
    "register": ({"register": Entry("file", 0, 0o644, "")}, "register's", "register_keys"),
    "kept": ({"kept_folder": Entry("dir", 0, 0o755)}, "kept files", "kept"),
    "debris": ({"temporary": ["/etc/lxc/.x.lab-iam-new"]}, "left by a kill", "debris"),
    "rule": ({"rules": frozenset({"-A LAB-IAM-PRE -j ACCEPT"})}, "1 too many", "rules"),
    "no-rule": ({"rules_wanted": frozenset({"-A LAB-IAM-PRE -j ACCEPT"})}, "1 missing", "rules"),
    "jump": ({"jumps": frozenset()}, "4 chains not in use", "rules"),
    "removed": ({"removed": [tombstones.Tombstone("zoe")], "usernet": "alice veth lxcbr0 1\nzoe veth lxcbr0 1\n"}, "zoe", "usernet"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SERVER)
def test_each_fault_of_a_server_is_one_line_with_its_fix(host: Host, kind: str) -> None:
    changes, words, remedy = SERVER[kind]
    item = only(checks.run_checks(facts(host, healthy(host), **changes)))
    assert words in str(item) and item.remedy == remedy


def test_the_order_of_a_rules_options_does_not_count(host: Host) -> None:
    is_, wanted = (
        "-A LAB-IAM-FWD -d 10.0.3.10/32 -o lxcbr0 -j ACCEPT",
        "-A LAB-IAM-FWD -o lxcbr0 -d 10.0.3.10/32 -j ACCEPT",
    )
    found = facts(host, healthy(host), rules=frozenset({is_}), rules_wanted=frozenset({wanted}))
    assert checks.run_checks(found) == []


def test_c4_an_overlap_in_subuid_is_told_for_a_human(host: Host) -> None:
    item = only(checks.run_checks(facts(host, healthy(host), subuid=f"alice:{START}:65536\nbob:{START + 9}:10\n")))
    assert "gives bob some of the same ids" in item.what and item.remedy == ""


def test_missing_and_other_blocks_of_ids(host: Host) -> None:
    assert only(checks.run_checks(facts(host, healthy(host), subgid=""))).remedy == "subids"
    item = only(checks.run_checks(facts(host, healthy(host), subuid="alice:5000000:65536\n")))
    assert "other subordinate ids" in item.what and item.remedy == ""


def test_two_people_with_one_address(host: Host) -> None:
    bob = healthy(host, user=replace(alice(), name="bob", subuid=2000000000, port=22002), told=(22002, 2000000000))
    found = facts(host, healthy(host), bob, usernet="alice veth lxcbr0 1\nbob veth lxcbr0 1\n")
    assert "is also alice's" in only(checks.run_checks(found)).what


def test_nothing_is_said_of_the_rules_while_a_journal_is_damaged(host: Host) -> None:
    """Who runs is not known then, so rules that look superfluous may be right."""
    found = facts(host, damaged=["alice"], rules=frozenset({"-A LAB-IAM-PRE -j ACCEPT"}))
    assert only(checks.run_checks(found)).remedy == "adopt"


def test_every_remedy_that_is_named_exists() -> None:
    named = {remedy for _, _, remedy in (*PERSON.values(), *SERVER.values()) if remedy}
    assert {*named, "subids"} == set(fixes.REMEDIES)
