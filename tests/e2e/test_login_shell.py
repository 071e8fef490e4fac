"""Cases L1 and L4 to L7, and what people do with their container from outside."""

import json
import random
import re
import string
import subprocess

import pytest

from tests.lab.commands import COMMANDS
from tests.lab.lab import Lab
from tests.lab.people import register
from tests.lab.walk import Walk

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
def test_l1_anything_else_is_refused(lab: Lab, word: str) -> None:
    alice = register(lab, "alice")
    done = alice.ssh("gpu17-manage", "--", word, check=False)
    assert done.returncode == 2, done
    assert re.match("unknown command|wrong arguments", done.stderr) and "help" in done.stderr
    assert "uid=" not in done.stdout + done.stderr


def test_l1_random_arguments_have_no_effect(lab: Lab) -> None:
    """A few hundred through the real sshd, over one connection; 100,000 are in hostscripts/test_shell_commands.py."""
    alice = register(lab, "alice")
    chance = random.Random(17)
    before = len(Walk(lab).commands_by("alice"))
    control = alice.folder / ".ssh/control"
    alice.ssh(
        "-o", "ControlMaster=yes", "-o", f"ControlPath={control}", "-o", "ControlPersist=60", "gpu17-manage", "help"
    )
    try:
        for _ in range(200):
            word = "".join(chance.choices(string.printable, k=chance.randint(1, 40))).strip()
            if chance.random() < 0.5:
                word = chance.choice(["start", "port", "rebuild", "recover", "console"]) + " " + word
            if word in ("", *KNOWN) or re.fullmatch(GOOD, word):
                continue
            done = alice.ssh("-o", f"ControlPath={control}", "gpu17-manage", "--", word, check=False)
            assert done.returncode == 2, (word, done)
    finally:
        alice.ssh("-o", f"ControlPath={control}", "-O", "exit", "gpu17-manage", check=False)
    assert len(Walk(lab).commands_by("alice")) == before


GOOD = r"(snapshot|recover) [A-Za-z0-9][A-Za-z0-9_.-]*( [a-z0-9]{8})?|port [0-9]+( [0-9]+)?|rebuild [a-z0-9]{8}"
KNOWN = tuple(name for name in COMMANDS if name != "recover")  # these need no arguments


def test_help_names_every_command_and_exit_status(lab: Lab) -> None:
    done = register(lab, "alice").ssh("gpu17-manage", "help")
    for word in (*KNOWN, "recover NAME", "port -d N", "--json", "Exit status"):
        assert word in done.stdout, word


def test_a_container_can_be_stopped_and_started_again(lab: Lab) -> None:
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
    assert alice.ssh("gpu17-manage", "stop").returncode == 0, "stopping twice is not an error"
    alice.ssh("gpu17-manage", "start")
    assert alice.ssh("gpu17-manage", "start").returncode == 0, "starting twice is not an error"
    assert alice.ssh("gpu17", "id -un").stdout.strip() == "alice"


def test_files_in_the_container_survive_stop_and_start(lab: Lab) -> None:
    alice = register(lab, "alice")
    alice.ssh("gpu17-manage")
    alice.ssh("gpu17", "echo kept > ~/note; sudo touch /etc/note")
    alice.ssh("gpu17-manage", "stop")
    alice.ssh("gpu17-manage")
    assert alice.ssh("gpu17", "cat ~/note; ls /etc/note").stdout.split() == ["kept", "/etc/note"]


def test_l4_concurrent_starts_and_stops_end_in_one_state(lab: Lab) -> None:
    alice = register(lab, "alice")
    argv = [alice.argv("-o", "BatchMode=yes", "gpu17-manage", word) for word in ("start", "stop", "start", "stop")]
    sessions = [subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for words in argv]
    for session in sessions:
        out, _ = session.communicate(timeout=90)
        assert session.returncode == 0, out
    found = json.loads(alice.ssh("gpu17-manage", "status --json").stdout)
    assert found["state"] == {"running": "running", "stopped": "stopped"}[found["desired_state"]]
    rules = lab.servers["gpu17"].run("iptables-save -t nat").stdout
    assert (f"--dport {found['port']} " in rules) == (found["state"] == "running")
    alice.ssh("gpu17-manage")


@pytest.mark.parametrize("flags", [["-T"], ["-tt"]], ids=["without a terminal", "with a terminal"])
def test_l5_a_start_whose_client_disconnects_is_completed_by_the_next_login(lab: Lab, flags: list[str]) -> None:
    """Output of the first steps shows how far the start is."""
    alice = register(lab, "alice")
    for lines in (0, 1, 2):
        alice.ssh("gpu17-manage", "stop")
        with subprocess.Popen(
            alice.argv(*flags, "-o", "BatchMode=yes", "gpu17-manage", "start"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as session:
            assert session.stdout is not None
            assert all(session.stdout.readline() for _ in range(lines)), "it ended before"
            session.kill()
        alice.ssh("gpu17-manage")
        assert alice.ssh("gpu17", "id -un").stdout.strip() == "alice"


@pytest.mark.parametrize("init", ["ends", "missing"])
def test_l6_a_container_that_does_not_start_is_reported_with_the_reason(lab: Lab, init: str) -> None:
    alice = register(lab, "alice")
    alice.ssh("gpu17-manage", "stop")
    machine, rootfs = lab.servers["gpu17"], "/home/alice/.local/share/lxc/alice/rootfs"
    new = "printf '#!/bin/sh\\nexit 7\\n' > sbin/init; chmod 755 sbin/init" if init == "ends" else "true"
    inside = f"cd {rootfs}; mv -T sbin/init sbin/init.kept; {new}"
    machine.run(inside)
    try:
        done = alice.ssh("gpu17-manage", check=False, timeout=40)
        assert done.returncode == 1, done
        assert ("stopped again" if init == "ends" else "did not start") in done.stdout
        assert "stopped" in alice.ssh("gpu17-manage", "status").stdout
        walk = Walk(lab)
        walk.user = "alice"
        rules = machine.run("iptables-save -t nat").stdout
        assert f"--dport {walk.port} " not in rules, "a rule for a container that does not exist"
    finally:
        machine.run(f"cd {rootfs}; rm -f sbin/init; mv -T sbin/init.kept sbin/init")
    alice.ssh("gpu17-manage")


def test_l6_without_sshd_a_start_ends_in_half_a_minute_and_console_can_repair_it(lab: Lab) -> None:
    alice = register(lab, "alice")
    alice.ssh("gpu17-manage")
    alice.ssh("gpu17", "sudo systemctl mask ssh.service")
    done = alice.ssh("gpu17-manage", "restart", check=False, timeout=60)
    assert done.returncode == 1, done
    assert "no sshd answered" in done.stdout and "ssh -t gpu17-manage console" in done.stdout
    assert "waiting for its sshd: 2 s" in done.stdout, "twenty seconds without output"
    with alice.on_a_terminal("gpu17-manage", "console") as console:
        console.wait_for("# ")
        console.type("systemctl unmask ssh.service; systemctl start ssh.service; echo do''ne\n")
        console.wait_for("done\r")
        console.type("exit\n")
        assert console.end()[0] == 0
    alice.ssh("gpu17-manage")
    assert alice.ssh("gpu17", "id -un").stdout.strip() == "alice"


def test_l7_files_in_the_home_and_environment_variables_have_no_effect(lab: Lab) -> None:
    """The home belongs to root, so the test puts the files there as root."""
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


def test_people_cannot_write_to_their_home_on_the_host(lab: Lab) -> None:
    register(lab, "alice")
    done = lab.servers["gpu17"].run("runuser -u alice -- touch /home/alice/x /home/alice/.ssh/rc", check=False)
    assert done.returncode != 0 and "Permission denied" in done.stderr
