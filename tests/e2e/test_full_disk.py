"""A container fills the disk on which all homes and the server's state lie: with blocks, then with inodes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import nvidia
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import Iam, is_known, join, register, restore
from tests.lab.person import Person
from tests.lab.shell import run
from tests.lab.waiting import eventually
from tests.lab.walk import body

SIZE, INODES = "1500M", 40_000
FULL = "warning: the disk of gpu18 is full: delete files"
MAKE_FILES = "mkdir -p many; cd many; seq 50000 | xargs -n 500 touch"


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    """gpu18 with a small disk, on which Alice and Bob have containers that run. Its own returns afterwards."""
    machine = lab.servers["gpu18"]
    for name in ("alice", "bob", "charlie"):
        register(lab, name, "gpu18")
        lab.people[name].ssh("gpu18-manage")
    lab.people["charlie"].ssh("gpu18-manage", "stop")
    machine.stop()
    own, image = machine.folder.with_name("gpu18.own"), machine.folder.with_name("gpu18.disk")
    machine.folder.rename(own)
    machine.folder.mkdir()
    try:
        run(["truncate", "-s", SIZE, str(image)])
        run(["mke2fs", "-q", "-F", "-t", "ext4", "-N", str(INODES), str(image)])
        run(["mount", "-o", "loop", str(image), str(machine.folder)])
        run(["cp", "-a", "--sparse=never", f"{own}/.", str(machine.folder)])
        boot(machine)
        yield machine
    finally:
        machine.stop()
        eventually(lambda: run(["umount", str(machine.folder)], check=False).returncode == 0, "the disk, unmounted")
        machine.folder.rmdir()
        own.rename(machine.folder)
        image.unlink()
        boot(machine)
        restore(lab)


def boot(machine: Machine) -> None:
    machine.boot()
    nvidia.make_devices(machine)


@pytest.fixture(scope="module", params=["blocks", "inodes"])
def full(lab: Lab, machine: Machine, request: pytest.FixtureRequest) -> Iterator[str]:
    """What is used up. The files are removed afterwards."""
    alice = lab.people["alice"]
    eventually(lambda: alice.ssh("gpu18", "true", check=False).returncode == 0, "Alice's container after the boot")
    command = "dd if=/dev/zero of=large bs=1M" if request.param == "blocks" else MAKE_FILES
    assert "No space left" in alice.ssh("gpu18", command, check=False, timeout=300).stderr
    yield request.param
    machine.run("rm -rf /home/alice/.local/share/lxc/alice/rootfs/home/alice/{large,many}")


def free(folder: Path) -> tuple[int, int, int]:
    """Bytes for root alone, bytes for all, inodes."""
    found = os.statvfs(folder)
    return (found.f_bfree - found.f_bavail) * found.f_frsize, found.f_bavail * found.f_frsize, found.f_favail


def test_z1_others_start_stop_and_forward_ports_on_a_full_disk(lab: Lab, machine: Machine, full: str) -> None:
    reserve, left, inodes = free(machine.folder)
    assert (left < 1 << 20) if full == "blocks" else (inodes == 0)
    assert reserve > 64 << 20, "the container used blocks that are reserved for root"
    bob: Person = lab.people["bob"]
    assert FULL in bob.ssh("gpu18-manage", "status").stdout
    assert FULL in bob.ssh("gpu18-manage").stdout
    bob.ssh("gpu18-manage", "port 8080")
    bob.ssh("gpu18-manage", "port -d 8080")
    bob.ssh("gpu18-manage", "stop")
    bob.ssh("gpu18-manage")
    assert bob.ssh("gpu18", "id -un").stdout == "bob\n"
    lab.people["charlie"].ssh("gpu18-manage")
    lab.people["charlie"].ssh("gpu18-manage", "stop")


@pytest.mark.parametrize("full", ["blocks"], indirect=True)
def test_z1_a_key_is_removed_on_a_full_disk(lab: Lab, machine: Machine, full: str) -> None:
    alice = join(lab, "alice")
    try:
        Iam(lab, machine).set_keys({"bob": [lab.people["bob"].public_key]})
        assert not is_known(machine, alice.public_key)
        assert body(alice.public_key) not in machine.run("cat /home/alice/.ssh/authorized_keys", check=False).stdout
        assert alice.ssh("gpu18-manage", "status", check=False).returncode == 255
    finally:
        restore(lab)


def test_z1_a_full_disk_is_a_finding_and_known_to_the_portal(lab: Lab, machine: Machine, full: str) -> None:
    done = machine.run("/usr/local/sbin/labhost doctor", check=False)
    assert done.returncode == 1 and "the disk of /home is almost full: " in done.stdout
    assert "/var/lib/lab-iam is" not in done.stdout
    found = Iam(lab, machine).status()["disks"]
    assert found["homes"]["free_inodes" if full == "inodes" else "free"] < 1 << 20
    assert found["state"]["free"] > 100 << 20 and found["state"]["free_inodes"] > 10_000
