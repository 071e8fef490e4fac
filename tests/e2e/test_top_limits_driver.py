"""What a container uses and may use, and its GPU driver: `top`, limits from the portal, both driver modes."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import nvidia
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.nvidia import LIBRARIES, VERSION
from tests.lab.people import register
from tests.lab.person import Person
from tests.lab.waiting import eventually

CONFIG = "/home/alice/.local/share/lxc/alice/config"


@pytest.fixture
def machine(lab: Lab) -> Machine:
    return lab.servers["gpu17"]


@pytest.fixture
def alice(lab: Lab) -> Person:
    person = register(lab, "alice")
    person.ssh("gpu17-manage")
    return person


@pytest.fixture
def limits(lab: Lab, alice: Person) -> Iterator[Any]:
    """Sets limits of everybody in the portal, as a member of staff would, and starts alice's container with them."""

    def set_limits(**values: object) -> str:
        words = ", ".join(f"{name}={value!r}" for name, value in values.items())
        portal(lab, f"limits.save(actor='boss', limits=Limits({words}))")
        return alice.ssh("gpu17-manage", "restart").stdout

    yield set_limits
    portal(lab, "Limits.objects.all().delete()")
    alice.ssh("gpu17-manage", "restart")


def portal(lab: Lab, code: str) -> None:
    lab.portal.manage(
        "shell",
        "-v",
        "0",
        "-c",
        f"from servers.models import Limits\nfrom servers.services.containers import limits\n{code}",
    )


def test_top_shows_who_uses_the_cpus_and_the_gpu(alice: Person, machine: Machine) -> None:
    busy = subprocess.Popen(alice.argv("gpu17", "timeout 8 sh -c 'while :; do :; done'"), stdin=subprocess.DEVNULL)
    try:
        loop = "pgrep -n -f '^sh -c while :; do :; done'"
        pid = eventually(lambda: machine.run(loop, check=False).stdout.strip(), "the busy loop")
        machine.run(f"echo '{pid}, 2048' > {nvidia.USERS}; chmod 644 {nvidia.USERS}")
        found = json.loads(alice.ssh("gpu17-manage", "top --json").stdout)
        shares = {(share["person"], share["place"]): share for share in found["shares"]}
        own = shares["alice", "container"]
        assert own["cpus"] > 0.05, "a busy loop is not in the output"
        assert own["gpu_memory"] == {"0": 2048 << 20} and own["memory"] > 10 << 20 and own["processes"] >= 5
        assert shares[None, "the server"]["processes"] > 3
        table = alice.ssh("gpu17-manage", "top").stdout.splitlines()
        assert table[1].split()[:2] == ["alice", "container"] and "0: 2 GB" in table[1]
        assert table[-1] == "GPU 0 (stand-in for a GPU): 87% busy, 10 GB of 40 GB"
    finally:
        busy.kill()
        busy.wait()
        machine.run(f"rm -f {nvidia.USERS}")


def test_top_waits_for_nvidia_smi_for_a_limited_time(alice: Person, machine: Machine) -> None:
    machine.run(
        "mv /usr/bin/nvidia-smi /root/smi; printf '#!/bin/sh\\nsleep 600\\n' > /usr/bin/nvidia-smi; chmod 755 /usr/bin/nvidia-smi"
    )
    try:
        assert "nvidia-smi failed" in alice.ssh("gpu17-manage", "top", timeout=45).stdout
    finally:
        machine.run("mv /root/smi /usr/bin/nvidia-smi")


def test_limits_of_the_portal_are_written(lab: Lab, alice: Person, machine: Machine, limits: Any) -> None:
    """The values in the LXC configuration. Their effect is tested below, where the kernel supports them."""
    assert "nvidia0" in alice.ssh("gpu17", "ls /dev").stdout.split()
    limits(memory=64, cpus="2.50", processes=4096, gpus="1")
    written = machine.file(CONFIG)
    for line in (
        "lxc.cgroup2.memory.max = 68719476736",
        "lxc.cgroup2.cpu.max = 250000 100000",
        "lxc.cgroup2.pids.max = 4096",
    ):
        assert line in written
    status = alice.ssh("gpu17-manage", "status").stdout
    assert "limits: memory 64 GB" in status and "2.50 CPUs" in status and "4096 processes" in status
    found = json.loads(alice.ssh("gpu17-manage", "status --json").stdout)
    assert found["limits"] == {"memory": "68719476736", "cpus": "2.50", "processes": "4096", "gpus": "1"}
    enforced = {"memory", "cpus", "processes"} - set(found["limits_not_enforced"])
    assert "processes" in enforced, "it needs no controller"
    for key, text in (("memory", "memory.max"), ("cpus", "cpu.max")):
        line = next(line for line in written.splitlines() if text in line)
        assert line.startswith("lxc.cgroup2.") == (key in enforced), "the list and the devices differ"
    # GPUs need no controller, so their effect is seen here: 0 is the only one, and root inside cannot make its node.
    assert {"nvidia0", "nvidiactl"} & set(alice.ssh("gpu17", "ls /dev").stdout.split()) == {"nvidiactl"}
    assert alice.ssh("gpu17", "sudo mknod /dev/nvidia0 c 195 0", check=False).returncode != 0


def test_limits_apply_while_the_portal_is_down(lab: Lab, alice: Person, machine: Machine, limits: Any) -> None:
    limits(gpus="none")
    lab.portal.web.stop()
    try:
        alice.ssh("gpu17-manage", "restart")
        assert not [name for name in alice.ssh("gpu17", "ls /dev").stdout.split() if name.startswith("nvidia")]
        assert "no GPUs" in alice.ssh("gpu17-manage", "status").stdout
    finally:
        lab.portal.start_web()


CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")
if CONTROLLERS.exists() and {"cpu", "memory", "pids"} <= set(CONTROLLERS.read_text().split()):

    def test_limits_take_effect_where_the_controllers_are_available(alice: Person, limits: Any) -> None:
        limits(memory=1, processes=128)
        hungry = "head -c 1500M /dev/zero | tail -c 1400M | wc -c"  # tail keeps it all in memory
        assert alice.ssh("gpu17", hungry, check=False).stdout.strip() != str(1400 << 20)
        many = "for i in $(seq 200); do sleep 20 & done; jobs | wc -l"
        assert "Cannot fork" in alice.ssh("gpu17", many, check=False).stderr


@pytest.fixture
def configured(machine: Machine) -> Iterator[Any]:
    """Changes host.conf as setup-gpu-server.bash does, and restores it."""
    before = machine.file("/etc/lab-iam/host.conf")

    def configure(**values: str) -> None:
        words = " ".join(f"{name.replace('__', '.')}={value}" for name, value in values.items())
        machine.run(f"/usr/local/sbin/labhost configure {words}")

    yield configure
    machine.run("cat > /etc/lab-iam/host.conf", stdin=before)


def test_mode_bind_shares_the_servers_driver_read_only_and_follows_upgrades(
    alice: Person, machine: Machine, configured: Any
) -> None:
    library, other = f"/{LIBRARIES}/libcuda.so.1", "550.54.14"
    assert VERSION in alice.ssh("gpu17", f"readlink {library}").stdout, "the installed driver of the other mode"
    configured(driver__mode="bind")
    try:
        assert "shared by the server" in alice.ssh("gpu17-manage", "restart").stdout
        assert alice.ssh("gpu17", f"cat {library}").stdout.strip() == f"stand-in {VERSION}"
        assert "stand-in for nvidia-smi" in alice.ssh("gpu17", "nvidia-smi").stdout
        for path in (library, "/usr/bin/nvidia-smi"):
            done = alice.ssh(
                "gpu17",
                f"echo pwned | sudo tee {path}; sudo mount -o remount,rw,bind {path}; echo pwned | sudo tee {path}",
                check=False,
            )
            refusals = ("Read-only file system", "Permission denied")  # before and after the remount
            assert done.stderr.splitlines() == [f"tee: {path}: {refusal}" for refusal in refusals]
        assert "pwned" not in machine.file(library) + machine.file("/usr/bin/nvidia-smi")
        machine.run(
            f"cd /{LIBRARIES}; echo 'stand-in {other}' > libcuda.so.{other}; ln -sfn libcuda.so.{other} libcuda.so.1"
        )
        output = machine.run("/usr/local/sbin/labhost nvidia").stdout.rpartition(f"{other}: ")[2]
        assert "must restart to use it" in output and "alice" in output
        alice.ssh("gpu17-manage", "restart")
        assert alice.ssh("gpu17", f"cat {library}").stdout.strip() == f"stand-in {other}"
    finally:
        machine.run(f"cd /{LIBRARIES}; ln -sfn libcuda.so.{VERSION} libcuda.so.1; rm -f libcuda.so.{other}")


def test_back_in_mode_install_the_driver_is_installed_again(alice: Person) -> None:
    """After the test above, which leaves no driver inside."""
    alice.ssh("gpu17-manage", "restart")
    assert VERSION in alice.ssh("gpu17", f"readlink /{LIBRARIES}/libcuda.so.1").stdout


def test_h6_an_installer_that_hangs_does_not_hang_the_start(alice: Person, machine: Machine, configured: Any) -> None:
    alice.ssh("gpu17-manage", "restart")  # with its own driver again, whatever ran before
    installer = f"/public/nvidia/NVIDIA-Linux-x86_64-{VERSION}.run"
    real = machine.file(installer)
    machine.run(f"printf '#!/bin/sh\\nsleep 1000\\n' > {installer}")
    configured(driver__seconds="3")
    try:
        alice.ssh("gpu17", f"sudo rm -f /{LIBRARIES}/libcuda.so.*")
        done = alice.ssh("gpu17-manage", "restart", timeout=60)
        assert "warning: driver not installed: the installer" in done.stdout and "took too long" in done.stdout
        assert "installing the driver: 2 s" in done.stdout
        assert alice.ssh("gpu17", "true").returncode == 0
    finally:
        machine.run(f"cat > {installer}", stdin=real)
    alice.ssh("gpu17-manage", "restart")


def test_labhost_nvidia_lists_the_driver_of_each_container_and_what_an_upgrade_affects(
    alice: Person, machine: Machine
) -> None:
    shown = machine.run("/usr/local/sbin/labhost nvidia").stdout
    row = next(line for line in shown.splitlines() if line.startswith("alice"))
    assert row.split() == ["alice", "running", VERSION, "(the", "server's)"]
    assert f"driver {VERSION}, mode install" in shown
    upgrade = machine.run("/usr/local/sbin/labhost nvidia 550.54.14").stdout
    assert "to update at the next start: " in upgrade and "alice" in upgrade.split("next start: ")[1]
    assert "NVIDIA-Linux-x86_64-550.54.14.run is missing" in upgrade
    assert machine.run("/usr/local/sbin/labhost nvidia '1;id'", check=False).returncode == 1


@pytest.mark.parametrize("words", ["status --json", "port --json", "top --json"])
def test_json_output_is_one_object_and_nothing_else(alice: Person, words: str) -> None:
    done = alice.ssh("gpu17-manage", words)
    assert len(done.stdout.splitlines()) == 1 and json.loads(done.stdout)["version"] == 1
