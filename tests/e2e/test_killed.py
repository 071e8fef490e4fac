"""Cases R4 and F2: killed at every step of register, start, stop and remove; power cuts of the server in the middle."""

import pytest

from tests.lab import faults
from tests.lab.faults import LABHOST
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import join, labhost_command
from tests.lab.person import Person
from tests.lab.waiting import eventually

NAME = "charlie"
REGISTER = f"/root/new-lxc.bash {NAME}"
START, STOP = f"{LABHOST} start {NAME}", f"{LABHOST} stop {NAME}"
REMOVE, PURGE = f"{LABHOST} remove {NAME} --yes", f"{LABHOST} remove {NAME} --yes --purge"


@pytest.fixture
def machine(lab: Lab) -> Machine:
    """gpu18, where charlie has a key and no container; the shared files have lines of other people."""
    if not lab.people[NAME].config.read_text():
        join(lab, NAME)
    machine = lab.servers["gpu18"]
    machine.run(f"{PURGE} || true")
    machine.run(
        "grep -q jimcharlie /etc/subuid || { echo jimcharlie:3000000000:65536 | tee -a /etc/subuid >> /etc/subgid;"
        " mkdir -p /etc/lxc; printf '# kept\\njimcharlie veth lxcbr0 3\\n' >> /etc/lxc/lxc-usernet; }"
    )
    (lab.people[NAME].folder / ".ssh/known_hosts").unlink(missing_ok=True)
    return machine


def works(person: Person) -> None:
    person.ssh("gpu18-manage")
    assert person.ssh("gpu18", "sudo -n id -u").stdout.strip() == "0"


def is_gone(machine: Machine) -> None:
    assert machine.run(f"getent passwd {NAME} || getent group {NAME}", check=False).stdout == ""
    assert machine.run(f"grep -E '^{NAME}[: ]' /etc/subuid /etc/subgid /etc/lxc/lxc-usernet", check=False).stdout == ""
    assert machine.run(f"ls -d /home/{NAME} /var/lib/lab-iam/users/{NAME}.json", check=False).stdout == ""
    assert machine.run("pgrep -U 1000000000-4000000000", check=False).stdout == ""


def test_r4_a_registration_killed_at_any_step_is_completed_by_the_next_one(lab: Lab, machine: Machine) -> None:
    steps = faults.kill_at_each(machine, NAME, REGISTER, lambda: machine.run(PURGE))
    assert {"before:account", "unnoted:clone", "shell"} <= set(steps)
    works(lab.people[NAME])


def test_a_removal_killed_at_any_step_is_completed_by_the_next_one(lab: Lab, machine: Machine) -> None:
    machine.run(REGISTER)
    works(lab.people[NAME])
    steps = faults.kill_at_each(machine, NAME, REMOVE, lambda: machine.run(f"{REGISTER} && {START}"))
    assert {"remove:note", "before:remove:data", "remove:place", "remove:tombstone"} <= set(steps)
    is_gone(machine)
    kept = machine.run("ls -d /home/.lab-iam-kept/charlie-*/.local/share/lxc/charlie").stdout.split()
    assert kept, "the files stay"


def test_a_start_or_stop_killed_at_any_step_is_completed_by_the_next_one(lab: Lab, machine: Machine) -> None:
    machine.run(REGISTER)
    steps = faults.kill_at_each(machine, NAME, START, lambda: machine.run(STOP))
    assert {"start:up", "start:noted", "start:ruled"} <= set(steps)
    works(lab.people[NAME])
    steps = faults.kill_at_each(machine, NAME, STOP, lambda: machine.run(START))
    assert {"stop:noted", "stop:ruled", "stop:down"} <= set(steps)
    assert faults.look(machine, NAME).leads_to == {}
    works(lab.people[NAME])


@pytest.mark.parametrize("step", ["unnoted:clone", "unnoted:container-account"])
def test_r4_the_server_reboots_in_the_middle_of_a_registration(lab: Lab, machine: Machine, step: str) -> None:
    faults.lose_current(machine, NAME, REGISTER, step)
    machine.run(REGISTER)
    works(lab.people[NAME])


@pytest.mark.parametrize("step", ["remove:keys", "remove:place"])
def test_the_server_reboots_in_the_middle_of_a_removal(lab: Lab, machine: Machine, step: str) -> None:
    machine.run(f"{REGISTER} && {START}")
    faults.lose_current(machine, NAME, REMOVE, step)
    machine.run(REMOVE)
    is_gone(machine)


def test_f2_the_server_reboots_in_the_middle_of_a_start(lab: Lab, machine: Machine) -> None:
    machine.run(REGISTER)
    faults.lose_current(machine, NAME, START, "start:answered")
    person = lab.people[NAME]
    eventually(lambda: person.ssh("gpu18", "true", check=False).returncode == 0, "its start after the reboot", 40)
    assert person.ssh("gpu18", "id -un").stdout.strip() == NAME


@pytest.mark.parametrize("step", ["slot-empty", "swapped"])
def test_the_server_reboots_in_the_middle_of_a_rebuild(lab: Lab, machine: Machine, step: str) -> None:
    machine.run(f"{REGISTER} && {START}")
    faults.lose_current(machine, NAME, labhost_command("lifecycle.rebuild", NAME), step)
    (lab.people[NAME].folder / ".ssh/known_hosts").unlink(missing_ok=True)
    works(lab.people[NAME])
    left = machine.run(f"ls -A /home/{NAME}/.local/share/lxc/{NAME}").stdout.split()
    assert left == ["config", "config.provision", "layer", "rootfs"]
