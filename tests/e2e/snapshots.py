"""A server with a folder for snapshots, and Alice's container on it."""

from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import register
from tests.lab.person import Person
from tests.lab.walk import Walk

NAS = "/var/lib/nas"
SUBUID = "$(awk -F: '$1 == \"alice\" { print $2 }' /etc/subuid)"  # for a command line on the server
ALICE = f"{NAS}/gpu17/{SUBUID}"
FOLDER = "/home/alice/.local/share/lxc/alice"
WHOLE = ["config", "config.provision", "layer", "rootfs"]


def configure(lab: Lab, server: str = "gpu17") -> Machine:
    """The server, which stores up to three snapshots per person in `NAS`."""
    machine = lab.servers[server]
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
