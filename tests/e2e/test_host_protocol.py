"""The contract between portal and host, and a hostile portal: the real host program answers."""

import json

import pytest

from tests.lab.lab import Lab
from tests.lab.people import Iam, frame, join, register, restore
from tests.lab.waiting import eventually


@pytest.fixture
def iam(lab: Lab) -> Iam:
    return Iam(lab, lab.servers["gpu17"])


def test_status_reports_the_accounts_and_containers_of_the_server(lab: Lab, iam: Iam) -> None:
    register(lab, "alice")
    status = iam.status()
    assert status["ok"] and status["version"] == 1 and status["name"] == "gpu17"
    assert status["containers"]["alice"]["address"].startswith("10.0.3.")


@pytest.mark.parametrize("verb", ["", "shell", "status; id", "set-keys x", "STATUS", "$(id)", "bash -i"])
def test_an_unknown_verb_is_refused(iam: Iam, verb: str) -> None:
    done = iam.ssh(verb)
    assert done.returncode == 2 and "uid=" not in done.stdout + done.stderr


BODY = json.dumps({"version": 1}).encode()


@pytest.mark.parametrize(
    ("framed", "refusal"),
    [
        (b"", "bad_frame"),
        (b"{}", "bad_frame"),
        (frame(BODY, length=len(BODY) + 1), "bad_frame"),
        (frame(BODY, digest="0" * 64), "bad_frame"),
        (frame(BODY)[:-3], "bad_frame"),
        (frame(BODY) + b"x", "bad_frame"),
        (frame(b"[1]"), "bad_request"),
        (frame(b"not json"), "bad_request"),
        (b"lab-iam 2 2 " + b"0" * 64 + b"\n{}", "bad_frame"),
        (b"lab-iam 1 99999999999999 " + b"0" * 64 + b"\n{}", "bad_frame"),
        (b"lab-iam 1 -5 " + b"0" * 64 + b"\n{}", "bad_frame"),
    ],
    ids=range(11),
)
@pytest.mark.parametrize("verb", ["set-keys", "register", "status"])
def test_a_broken_frame_applies_nothing(lab: Lab, iam: Iam, verb: str, framed: bytes, refusal: str) -> None:
    before = lab.servers["gpu17"].run("md5sum /home/register/.ssh/authorized_keys /etc/passwd").stdout
    answer = iam.send(verb, framed)
    assert answer.code == 1 and answer.refusal == refusal, answer.body
    assert "Traceback" not in answer.progress
    assert lab.servers["gpu17"].run("md5sum /home/register/.ssh/authorized_keys /etc/passwd").stdout == before


def test_y4_an_older_revision_is_refused(lab: Lab, iam: Iam) -> None:
    alice = register(lab, "alice")
    revision = iam.status()["revision"]
    answer = iam.set_keys({"alice": []}, revision=revision - 1, previous="0" * 32)
    assert answer.code == 1 and answer.refusal == "other_history"
    assert alice.ssh("gpu17-manage", "status").returncode == 0


def test_y8_one_bad_entry_does_not_stop_the_others(lab: Lab, iam: Iam) -> None:
    register(lab, "alice")
    register(lab, "bob")
    people = lab.people
    state = {
        "alice": [people["alice"].public_key],
        "bob": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAbroken x"],
        "charlie": [people["charlie"].public_key],
    }
    try:
        answer = iam.set_keys(state)
        assert answer.code == 1 and answer.refusal == "partial", answer.body
        users = answer.body["users"]
        assert users["alice"]["host"] in ("written", "unchanged") and users["alice"]["error"] is None
        assert users["bob"]["error"]["reason"] == "key_refused"
        assert people["alice"].ssh("gpu17-manage", "status").returncode == 0
    finally:
        restore(lab)


def test_y8_a_missing_home_does_not_stop_the_others(lab: Lab, iam: Iam) -> None:
    register(lab, "alice")
    register(lab, "bob")
    machine = lab.servers["gpu17"]
    bob = lab.people["bob"]
    bob.ssh("gpu17-manage", "stop")
    machine.run("mv /home/bob /home/bob.away")
    try:
        line = lab.people["alice"].make_key("y8")
        answer = iam.set_keys({"alice": [lab.people["alice"].public_key, line], "bob": [bob.public_key]})
        assert answer.body["users"]["alice"]["host"] == "written", answer.body
        assert answer.body["users"]["bob"]["host"] == "failed", answer.body
    finally:
        machine.run("mv -T /home/bob.away /home/bob || { rm -rf /home/bob; mv -T /home/bob.away /home/bob; }")
        restore(lab)
    assert bob.ssh("gpu17-manage", "status").returncode == 0


@pytest.mark.parametrize("name", ["root", "iam", "register", "../alice", "Alice", "a b"])
def test_a_hostile_portal_cannot_give_keys_to_other_accounts(lab: Lab, iam: Iam, name: str) -> None:
    machine = lab.servers["gpu17"]
    before = machine.run("cat /root/.ssh/authorized_keys /home/iam/.ssh/authorized_keys").stdout
    enemy = lab.people["charlie"].public_key
    try:
        iam.set_keys({name: [enemy], "alice": [lab.people["alice"].public_key]})
        assert machine.run("cat /root/.ssh/authorized_keys /home/iam/.ssh/authorized_keys").stdout == before
        accepted = machine.file("/home/register/.ssh/authorized_keys")
        assert enemy.split()[1] not in accepted
    finally:
        restore(lab)


def test_a_hostile_portal_cannot_add_options_to_a_key(lab: Lab, iam: Iam) -> None:
    register(lab, "alice")
    key = lab.people["alice"].public_key.split()
    users = {"alice": [{"type": key[0], "blob": key[1], "comment": 'x\nssh-rsa AAAA evil" command="/bin/sh'}]}
    import hashlib

    text = json.dumps(users, sort_keys=True, separators=(",", ":"))
    try:
        digest = hashlib.sha256(text.encode()).hexdigest()
        push = iam.next_step() | {"digest": digest, "users": users, "ids": iam.ids()}
        assert iam.call("set-keys", push).refusal == "", "a comment is no fault: line breaks in it are made harmless"
        inside = lab.servers["gpu17"].file("/home/alice/.local/share/lxc/alice/rootfs/home/alice/.ssh/authorized_keys")
        assert [line.split()[:2] for line in inside.splitlines()] == [key[:2]]
        for path in ("/home/alice/.ssh/authorized_keys", "/home/register/.ssh/authorized_keys"):
            for line in lab.servers["gpu17"].file(path).splitlines():
                assert line.startswith("restrict,") and "evil" not in line
    finally:
        restore(lab)


def test_a_server_that_was_down_is_brought_up_to_date_when_it_returns(lab: Lab) -> None:
    """Y1 with a real server: gpu17 gets the key while gpu18 is off."""
    from tests.lab import nvidia
    from tests.lab.people import is_known, paste

    join(lab, "bob")
    away = lab.servers["gpu18"]
    away.stop()
    line = lab.people["bob"].make_key("while_away")
    page = paste(lab, "bob", line)
    eventually(lambda: is_known(lab.servers["gpu17"], line), "the key on gpu17", timeout=10)
    eventually(lambda: "gpu18" in page.get("/log/push-keys").text, "gpu18 in the log")
    away.boot()
    nvidia.make_devices(away)
    lab.portal.manage("push_keys", "--wait", check=False)
    eventually(lambda: is_known(away, line), "the key on gpu18", timeout=90)
