"""After a reboot: containers that ran start again, stopped ones stay stopped, and one that cannot start delays no other."""

from functools import partial

import pytest

from tests.lab import faults, nvidia
from tests.lab.faults import LABHOST
from tests.lab.lab import Lab
from tests.lab.people import register
from tests.lab.person import Person
from tests.lab.waiting import eventually

NAMES = ("alice", "bob", "charlie", "lqchen")


@pytest.fixture
def everybody(lab: Lab) -> None:
    for name in NAMES:
        person = register(lab, name, "gpu18")
        (person.folder / ".ssh/known_hosts").unlink(missing_ok=True)
        person.ssh("gpu18-manage")


def test_f2_containers_that_ran_start_again_after_a_reboot(lab: Lab, everybody: None) -> None:
    machine = lab.servers["gpu18"]
    init = "/home/charlie/.local/share/lxc/charlie/rootfs/usr/lib/systemd/systemd"
    lab.people["bob"].ssh("gpu18-manage", "stop")
    machine.run(f"mv {init} {init}.away")
    machine.reboot()
    nvidia.make_devices(machine)
    seen = faults.look(machine, "alice")
    faults.is_safe(seen, seen, "alice")
    for name in ("alice", "lqchen"):
        eventually(partial(_answers, lab.people[name]), f"{name}'s container", 40)
        assert lab.people[name].ssh("gpu18", "id -un").stdout.strip() == name
    eventually(lambda: _ended(lab), "the end of the service", 60)
    leads_to = faults.look(machine, "alice").leads_to
    assert set(leads_to) == {seen.people[name][0] for name in ("alice", "lqchen")}
    log = machine.run("journalctl -b -u lab-iam-containers -o cat --no-pager").stdout
    assert "alice: started" in log and "did not start: charlie" in log, log
    machine.run(f"mv {init}.away {init}")
    assert "charlie: started" in machine.run(f"{LABHOST} autostart").stdout
    assert lab.people["charlie"].ssh("gpu18", "id -un").stdout.strip() == "charlie"


def _answers(person: Person) -> bool:
    return person.ssh("gpu18", "true", check=False).returncode == 0


def _ended(lab: Lab) -> bool:
    shown = lab.servers["gpu18"].run("systemctl show -p ActiveState --value lab-iam-containers").stdout
    return shown.strip() in ("inactive", "failed")
