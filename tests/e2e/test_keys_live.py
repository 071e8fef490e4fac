"""A saved key works in seconds, a removed one does not, and a person's port is the same everywhere."""

import re

from tests.lab.lab import Lab
from tests.lab.people import browser, is_known, join, paste, register, remove_key
from tests.lab.person import Person
from tests.lab.waiting import eventually

SECONDS = 10


def test_a_saved_key_works_seconds_later(lab: Lab) -> None:
    alice = register(lab, "alice")
    alice.ssh("gpu17-manage")
    line = alice.make_key("new_laptop")
    assert alice.ssh("gpu17", "true", key="new_laptop", check=False).returncode == 255
    paste(lab, "alice", line)
    eventually(lambda: alice.ssh("gpu17", "true", key="new_laptop", check=False).returncode == 0, "a session", SECONDS)
    assert alice.ssh("gpu17-manage", "status", key="new_laptop").returncode == 0


def test_a_removed_key_is_refused_at_every_place(lab: Lab) -> None:
    alice = register(lab, "alice")
    alice.ssh("gpu17-manage")
    line = alice.make_key("lost_laptop")
    paste(lab, "alice", line)
    eventually(lambda: alice.ssh("gpu17", "true", key="lost_laptop", check=False).returncode == 0, "a session", SECONDS)
    remove_key(lab, "alice", line)
    eventually(
        lambda: alice.ssh("gpu17", "true", key="lost_laptop", check=False).returncode == 255, "a refusal", SECONDS
    )
    for host in ("gpu17-manage", "register@gpu17-manage"):
        refused = alice.ssh(host, key="lost_laptop", check=False)
        assert refused.returncode == 255 and "Permission denied" in refused.stderr, host
    assert not is_known(lab.servers["gpu18"], line)
    assert alice.ssh("gpu17", "true").returncode == 0, "the other key was removed too"


def test_the_same_port_works_on_the_second_server(lab: Lab) -> None:
    bob = register(lab, "bob")
    register(lab, "bob", "gpu18")
    ports = set(re.findall(r"Port (\d+)", bob.config.read_text()))
    assert len(ports) == 1
    for server in ("gpu17", "gpu18"):
        bob.ssh(f"{server}-manage")
        seen = bob.ssh(server, "hostname; id -un; sudo -n id -u").stdout.split()
        assert seen == [server, "bob", "0"]


def test_two_people_have_separate_ports_blocks_and_containers(lab: Lab) -> None:
    """Also R8: containers never share SSH host keys or a machine-id."""
    seen = []
    for name in ("alice", "bob"):
        person = register(lab, name)
        person.ssh("gpu17-manage")
        command = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub; head -1 /proc/self/uid_map"
        seen.append(person.ssh("gpu17", command).stdout.splitlines())
    for of_alice, of_bob in zip(*seen, strict=True):
        assert of_alice != of_bob


def test_somebody_without_an_account_cannot_log_in_anywhere(lab: Lab) -> None:
    join(lab, "bob")
    stranger = Person("dora", lab.folder / "people/dora")
    stranger.create()
    stranger.config.write_text(lab.people["bob"].config.read_text())
    for host in ("gpu17-manage", "register@gpu17-manage", "dora@gpu17-manage", "iam@gpu17-manage"):
        assert stranger.ssh(host, check=False).returncode == 255, host
    assert browser(lab).get("/user/bob/port").status_code == 403
