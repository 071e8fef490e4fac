"""A server with a folder for snapshots, and Alice's container on it."""

from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import register
from tests.lab.person import Person
from tests.lab.walk import Walk

NAS = "/var/lib/nas"
ALICE = f"{NAS}/gpu17/alice"
FOLDER = "/home/alice/.local/share/lxc/alice"
WHOLE = ["config", "config.provision", "layer", "rootfs"]


def configure(lab: Lab) -> Machine:
    """The server gpu17, which stores up to three snapshots per person in `NAS`."""
    machine = lab.servers["gpu17"]
    machine.run(
        f"mkdir -p {NAS}; /usr/local/sbin/labhost configure snapshots.folder={NAS} snapshots.keep=3;"
        " /usr/local/sbin/labhost check"
    )
    return machine


def alice_without_snapshots(lab: Lab, machine: Machine) -> Person:
    """Alice, with a running container and without snapshots."""
    alice = register(lab, "alice")
    machine.run(f"rm -rf {ALICE}")
    alice.ssh("gpu17-manage")
    return alice


def names(alice: Person) -> list[str]:
    return [line.split()[0] for line in alice.ssh("gpu17-manage", "snapshots").stdout.splitlines() if " MB" in line]


def init_of(lab: Lab) -> str:
    walk = Walk(lab)
    walk.user = "alice"
    return walk.lxc_info("-pH")
