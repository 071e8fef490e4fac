"""Cases L1, L3 and L7, and what a person does with her container from outside it."""

import random
import string

import pytest

from tests.lab.lab import Lab
from tests.lab.people import register
from tests.lab.walk import Walk, eventually

WORDS = [
    "id",
    "start; id",
    "$(id)",
    "start stop",
    "START",
    "*",
    "-c",
    "--help",
    "start\n id",
    "/bin/sh",
    "sta?t",
    "x" * 100_000,
]


@pytest.mark.parametrize("word", WORDS, ids=lambda word: repr(word[:12]))
def test_l1_anything_else_is_an_unknown_command(lab: Lab, word: str) -> None:
    alice = register(lab, "alice")
    done = alice.ssh("gpu17-manage", "--", word, check=False)
    assert done.returncode == 2, done
    assert "unknown command" in done.stderr and "help" in done.stderr
    assert "uid=" not in done.stdout + done.stderr


def test_l1_random_words_have_no_effect(lab: Lab) -> None:
    alice = register(lab, "alice")
    chance = random.Random(17)
    before = len(Walk(lab).commands_by("alice"))
    for _ in range(40):
        word = "".join(chance.choices(string.printable, k=chance.randint(1, 40))).strip()
        if word in ("", "start", "stop", "status", "help"):
            continue
        assert alice.ssh("gpu17-manage", "--", word, check=False).returncode == 2, word
    assert len(Walk(lab).commands_by("alice")) == before


def test_help_names_every_command(lab: Lab) -> None:
    done = register(lab, "alice").ssh("gpu17-manage", "help")
    for word in ("start", "stop", "status", "help"):
        assert word in done.stdout


def test_stop_and_start_again(lab: Lab) -> None:
    alice = register(lab, "alice")
    walk = Walk(lab)
    walk.user = "alice"
    alice.ssh("gpu17-manage")
    assert "running" in alice.ssh("gpu17-manage", "status").stdout
    rule = f"--dport {walk.port} "
    assert rule in lab.servers["gpu17"].run("iptables-save -t nat").stdout
    alice.ssh("gpu17-manage", "stop")
    assert walk.container_state() == "STOPPED"
    assert "stopped" in alice.ssh("gpu17-manage", "status").stdout
    assert rule not in lab.servers["gpu17"].run("iptables-save -t nat").stdout
    assert alice.ssh("gpu17", "true", check=False).returncode == 255
    assert alice.ssh("gpu17-manage", "stop").returncode == 0, "stopping twice is no error"
    alice.ssh("gpu17-manage", "start")
    assert alice.ssh("gpu17-manage", "start").returncode == 0, "starting twice is no error"
    assert alice.ssh("gpu17", "id -un").stdout.strip() == "alice"


def test_files_in_the_container_outlive_stop_and_start(lab: Lab) -> None:
    alice = register(lab, "alice")
    alice.ssh("gpu17-manage")
    alice.ssh("gpu17", "echo kept > ~/note; sudo touch /etc/note")
    alice.ssh("gpu17-manage", "stop")
    alice.ssh("gpu17-manage")
    assert alice.ssh("gpu17", "cat ~/note; ls /etc/note").stdout.split() == ["kept", "/etc/note"]


def test_l3_with_the_portal_down_start_stop_status_and_login_go_on(lab: Lab) -> None:
    alice = register(lab, "alice")
    lab.portal.web.stop()
    try:
        alice.ssh("gpu17-manage", "stop")
        done = alice.ssh("gpu17-manage")
        assert "portal" in (done.stdout + done.stderr).lower(), "it does not say that its values are old"
        assert alice.ssh("gpu17-manage", "status").returncode == 0
        assert alice.ssh("gpu17", "id -un").stdout.strip() == "alice"
    finally:
        lab.portal.start_web()


def test_l7_what_lies_in_the_home_or_the_environment_has_no_effect(lab: Lab) -> None:
    """The home is root's: the test has to put the files there as root."""
    alice = register(lab, "alice")
    machine = lab.servers["gpu17"]
    machine.run(
        "cd /home/alice; for f in .bashrc .profile .bash_profile .ssh/rc .ssh/environment; do"
        " printf 'touch /tmp/pwned; echo PWNED\\nBASH_ENV=/home/alice/.bashrc\\n' > $f; chmod 755 $f; done"
    )
    try:
        done = alice.ssh("-o", "SetEnv=BASH_ENV=/home/alice/.bashrc LC_ALL=C", "gpu17-manage", "status")
        assert "PWNED" not in done.stdout + done.stderr
        assert machine.run("test -e /tmp/pwned", check=False).returncode == 1
    finally:
        machine.run("cd /home/alice; rm -f .bashrc .profile .bash_profile .ssh/rc .ssh/environment")


def test_a_user_cannot_write_in_her_home_on_the_host(lab: Lab) -> None:
    register(lab, "alice")
    done = lab.servers["gpu17"].run("runuser -u alice -- touch /home/alice/x /home/alice/.ssh/rc", check=False)
    assert done.returncode != 0 and "Permission denied" in done.stderr


def test_after_a_reboot_no_rule_points_anywhere_wrong_and_start_works(lab: Lab) -> None:
    """F2: the server loses its current with a container running."""
    alice = register(lab, "alice")
    alice.ssh("gpu17-manage")
    walk = Walk(lab)
    walk.user = "alice"
    machine = lab.servers["gpu17"]
    machine.reboot()
    from tests.lab import nvidia

    nvidia.make_devices(machine)
    eventually(lambda: "LAB-IAM-PRE" in machine.run("iptables-save -t nat").stdout, "our chains after the boot")
    assert walk.container_state() != "RUNNING"
    assert f"--dport {walk.port} " not in machine.run("iptables-save -t nat").stdout
    alice.ssh("gpu17-manage")
    assert alice.ssh("gpu17", "id -un").stdout.strip() == "alice"
