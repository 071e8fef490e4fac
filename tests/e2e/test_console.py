"""`console`: root inside the person's own container and nothing outside, on a terminal that is not the server's."""

import json
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import register
from tests.lab.person import Person
from tests.lab.waiting import eventually
from tests.lab.walk import Walk


@pytest.fixture
def machine(lab: Lab) -> Machine:
    return lab.servers["gpu17"]


@pytest.fixture
def alice(lab: Lab) -> Person:
    person = register(lab, "alice")
    person.ssh("gpu17-manage")
    return person


def left(machine: Machine) -> str:
    return machine.run(
        "ps axo user:20,args | grep -E 'lxc-attach|labhost user console|[s]leep 54321' | grep -v grep", check=False
    ).stdout


def test_it_is_root_of_the_container_in_the_persons_scope(lab: Lab, alice: Person, machine: Machine) -> None:
    subuid = Walk(lab).rows("SELECT start FROM accounts_subuidrange WHERE username = 'alice'")[0][0]
    with alice.on_a_terminal("gpu17-manage", "console") as console:
        console.wait_for("# ")
        console.type("id -u; tr -s ' ' ' ' < /proc/self/uid_map; hostname; env | grep -c SUDO\n")
        seen = console.wait_for("# ")
        assert f" 0 {subuid} 65536" in seen and "gpu17" in seen
        who = machine.run("ps axo user:20,args | grep '[l]xc-attach --lxcpath'").stdout.split()[0]
        assert who == "alice", "lxc-attach runs as another account"
        uid = machine.run("id -u alice").stdout.strip()
        pid = machine.run("pgrep -f 'lxc-attach --lxcpath' | head -n 1").stdout.strip()
        assert f"user-{uid}.slice/user@{uid}.service/" in machine.file(f"/proc/{pid}/cgroup")
        console.type("exit 0\n")
        code, _ = console.end()
    assert code == 0 and left(machine) == ""


def test_it_needs_a_terminal_and_prints_how_to_get_one(alice: Person) -> None:
    done = alice.ssh("gpu17-manage", "console", check=False)
    assert done.returncode == 2 and "ssh -t gpu17-manage console" in done.stdout


def test_it_is_refused_while_the_container_is_stopped(alice: Person) -> None:
    alice.ssh("gpu17-manage", "stop")
    with alice.on_a_terminal("gpu17-manage", "console") as console:
        code, seen = console.end()
    assert code == 3 and "start it first" in seen


def test_it_ends_with_the_connection(alice: Person, machine: Machine) -> None:
    with alice.on_a_terminal("gpu17-manage", "console") as console:
        console.wait_for("# ")
        console.type("sleep 54321\n")
        eventually(lambda: "sleep 54321" in left(machine), "the process in the console")
    eventually(lambda: left(machine) == "", "the end of its processes")


def test_l1_input_injected_into_the_terminal_stays_in_the_container(alice: Person, machine: Machine, lab: Lab) -> None:
    """TIOCSTI types into a terminal: as root in the container, into every terminal that can be reached there."""
    setting = Path("/proc/sys/dev/tty/legacy_tiocsti")  # a setting of the kernel, so of this machine too
    kept = setting.read_text() if setting.exists() else ""
    if kept:
        setting.write_text("1")  # newer kernels refuse it to everybody; older ones on real servers do not
    inject = "perl -e 'for my $c (split //, \"touch /tmp/injected\\n\") { ioctl(STDIN, 0x5412, $c) or die }'"
    before = len(Walk(lab).commands_by("alice"))
    try:
        with alice.on_a_terminal("gpu17-manage", "console") as console:
            console.wait_for("# ")
            console.type(f"{inject}; exit\n")
            console.end()
    finally:
        if kept:
            setting.write_text(kept)
    assert machine.run("test -e /tmp/injected", check=False).returncode == 1
    assert len(Walk(lab).commands_by("alice")) == before + 1


def test_terminal_escapes_of_the_container_are_not_in_the_servers_messages(alice: Person, machine: Machine) -> None:
    """The console passes bytes on, as ssh does; messages of labhost about a container contain none of its bytes."""
    alice.ssh("gpu17", "sudo ln -sfn $(printf 'libcuda.so.1\\033[2J') /usr/lib/x86_64-linux-gnu/libcuda.so.1")
    done = alice.ssh("gpu17-manage", "status")
    assert "\x1b" not in done.stdout
    assert json.loads(alice.ssh("gpu17-manage", "status --json").stdout)["driver"]["container"] == ""
    alice.ssh("gpu17-manage")
