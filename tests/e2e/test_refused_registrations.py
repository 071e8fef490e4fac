"""Cases R7, C4 and C5: impossible registrations are refused with a clear message and without leftovers."""

import pytest

from tests.lab.faults import LABHOST
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import join
from tests.lab.walk import Walk

NAME = "charlie"
TEMPLATE = "/var/lib/lab-iam/template.tar.zst"
SHARED = "/etc/passwd /etc/group /etc/subuid /etc/subgid /etc/lxc/lxc-usernet"


@pytest.fixture
def machine(lab: Lab) -> Machine:
    """gpu18, which has nothing of charlie."""
    if not lab.people[NAME].config.read_text():
        join(lab, NAME)
    machine = lab.servers["gpu18"]
    machine.run(f"{LABHOST} remove {NAME} --yes --purge || true")
    return machine


def is_refused(machine: Machine, words: str, command: str = f"/root/new-lxc.bash {NAME}") -> None:
    before = machine.run(f"cat {SHARED}; ls -A /home /var/lib/lab-iam/users").stdout
    done = machine.run(command, check=False)
    assert done.returncode == 1 and words in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert machine.run(f"cat {SHARED}; ls -A /home /var/lib/lab-iam/users").stdout == before


TEMPLATES = {
    "missing": ("true", "is missing"),
    "empty": (f": > {TEMPLATE}", "not a tar archive"),
    "text": (f"echo no archive > {TEMPLATE}", "not a tar archive"),
    "cut": (f"head -c 5000000 {TEMPLATE}.away > {TEMPLATE}", "damaged"),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_r7_a_file_that_is_not_a_template_is_refused(lab: Lab, machine: Machine, kind: str) -> None:
    command, words = TEMPLATES[kind]
    machine.run(f"mv {TEMPLATE} {TEMPLATE}.away && {{ {command}; }}")
    try:
        is_refused(machine, words)
    finally:
        machine.run(f"mv {TEMPLATE}.away {TEMPLATE}")


def test_r7_a_registration_on_a_nearly_full_disk_is_refused(lab: Lab, machine: Machine) -> None:
    """Only the registration sees a small file system in place of the homes."""
    small = "mount -t tmpfs -o size=20m tmpfs /home"
    is_refused(machine, "the disk is", f"unshare -m --propagation private sh -c '{small} && /root/new-lxc.bash {NAME}'")


def test_c4_a_block_that_overlaps_one_of_the_host_is_refused(lab: Lab, machine: Machine) -> None:
    walk = Walk(lab)
    walk.user = NAME
    for path in ("/etc/subuid", "/etc/subgid"):
        machine.run(f"echo jim{NAME}:{walk.subuid + 60000}:100 >> {path}")
        try:
            is_refused(machine, f"overlap those of jim{NAME} in {path}")
        finally:
            machine.run(f"sed -i /^jim{NAME}:/d {path}")


def test_c5_lines_of_others_survive_a_registration_and_a_removal(lab: Lab, machine: Machine) -> None:
    others = f"jim{NAME}:3000000000:65536 {NAME}jim:3100000000:65536"
    machine.run(f"for f in /etc/subuid /etc/subgid; do printf '%s\\n' {others} >> $f; done")
    machine.run(f"printf '# kept\\njim{NAME} veth lxcbr0 3\\n{NAME} veth br1 2\\n' >> /etc/lxc/lxc-usernet")
    before = machine.run(f"cat {SHARED}").stdout
    try:
        machine.run(f"/root/new-lxc.bash {NAME}")
        during = machine.run("cat /etc/subuid /etc/subgid /etc/lxc/lxc-usernet").stdout.splitlines()
        assert set(others.split()) <= set(during)
        assert {"# kept", f"jim{NAME} veth lxcbr0 3", f"{NAME} veth br1 2"} <= set(during)
        machine.run(f"{LABHOST} remove {NAME} --yes --purge")
        assert machine.run(f"cat {SHARED}").stdout == before
    finally:
        undo = f"/^jim{NAME}/d; /^{NAME}jim/d; /^# kept/d; / br1 /d"
        machine.run(f"sed -i '{undo}' /etc/subuid /etc/subgid /etc/lxc/lxc-usernet")
