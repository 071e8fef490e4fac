"""Case Z1 on a booted server: a container that fills its disk, with a qgroup of btrfs and with a disk image."""

import json
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import forget, join, register
from tests.lab.shell import run

GIGABYTE = 1 << 30
FOLDER = "/home/charlie/.local/share/lxc/charlie"
LABHOST = "/usr/local/sbin/labhost"


@pytest.fixture(params=["image", "btrfs"])
def machine(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """gpu18 with a limit of 1 GB for everybody; with btrfs, its homes lie on a file system of their own meanwhile."""
    machine, on_btrfs = lab.servers["gpu18"], request.param == "btrfs"
    if not lab.people["charlie"].config.read_text():
        join(lab, "charlie")
    forget(lab, "charlie", "gpu18")
    portal(lab, "limits.save(actor='boss', limits=Limits(disk=1))")
    machine.run("[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237")
    machine.run("for n in $(seq 0 31); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done")
    if on_btrfs:
        disk = machine.folder / "templates/homes.img"
        run(["truncate", "--size=4G", str(disk)])
        run(["mkfs.btrfs", "-q", str(disk)])
        mount = "mount -o loop /var/lib/lab-iam-templates/homes.img"
        machine.run(f"{mount} /mnt; cp -a /home/iam /home/register /mnt; umount /mnt; {mount} /home")
    else:
        machine.run(f"{LABHOST} configure container.quota=image")
    try:
        yield machine
    finally:
        forget(lab, "charlie", "gpu18")
        machine.run(f"umount {FOLDER}; {LABHOST} configure container.quota=auto", check=False)
        if on_btrfs:
            machine.run("umount -l /home; rm /var/lib/lab-iam-templates/homes.img")
        portal(lab, "Limits.objects.all().delete()")


def portal(lab: Lab, code: str) -> None:
    imports = "from servers.models import Limits\nfrom servers.services.containers import limits\n"
    lab.portal.manage("shell", "-v", "0", "-c", imports + code)


def test_z1_a_container_that_fills_its_disk_disturbs_nobody_and_can_be_emptied(lab: Lab, machine: Machine) -> None:
    charlie = register(lab, "charlie", "gpu18")
    (charlie.folder / ".ssh/known_hosts").unlink(missing_ok=True)
    charlie.ssh("gpu18-manage")

    def fill() -> None:
        done = charlie.ssh("gpu18", "sudo sh -c 'cat /dev/zero > /big'", check=False, timeout=300)
        assert "No space left" in done.stderr or "quota exceeded" in done.stderr, done.stderr

    fill()
    status = json.loads(charlie.ssh("gpu18-manage", "status --json").stdout)
    assert "disk" in status["limits"] and "disk" not in status["limits_not_enforced"]
    assert 0.8 * GIGABYTE < status["disk_used"] <= GIGABYTE + (4 << 20)
    shown = charlie.ssh("gpu18-manage", "status").stdout
    assert "limits: 8192 processes, disk 1 GB\n" in shown and "MB used\n" in shown
    assert "charlie" not in machine.run(f"{LABHOST} doctor", check=False).stdout

    charlie.ssh("gpu18-manage", "restart")
    charlie.ssh("gpu18", "sudo rm /big; echo x > note; sync")
    fill()
    charlie.ssh_confirmed("gpu18", "rebuild")
    (charlie.folder / ".ssh/known_hosts").unlink()
    charlie.ssh("gpu18-manage")
    assert charlie.ssh("gpu18", "ls /big", check=False).returncode != 0
    assert "layer.old" not in machine.run(f"ls {FOLDER}").stdout

    removed = machine.run(f"{LABHOST} remove charlie --yes").stdout
    assert "/home/.lab-iam-kept/charlie-" in removed and "charlie" not in machine.run("cat /proc/mounts").stdout
    register(lab, "charlie", "gpu18")
    (charlie.folder / ".ssh/known_hosts").unlink()
    charlie.ssh("gpu18-manage")
    assert charlie.ssh("gpu18", "head -c 300M /dev/zero > big; wc -c < big").stdout.strip() == str(300 << 20)
    machine.run(f"{LABHOST} remove charlie --purge --yes")
    assert "charlie-" not in machine.run("ls -A /home/.lab-iam-kept", check=False).stdout
