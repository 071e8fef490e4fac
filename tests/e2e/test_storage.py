"""Storage on the real servers: cases R7 and R8, template updates, rebuild, reboot, and both drivers side by side."""

from collections.abc import Iterator

import pytest

from tests.lab import faults, nvidia
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import Iam, forget, join, labhost, labhost_command, register, restore
from tests.lab.waiting import eventually

ARCHIVE = "/var/lib/lab-iam/template.tar.zst"
TEMPLATES = "/var/lib/lab-iam/templates"


def folder(name: str) -> str:
    return f"/home/{name}/.local/share/lxc/{name}"


def is_mounted(machine: Machine, name: str) -> bool:
    return machine.run(f"findmnt -n -t overlay {folder(name)}/rootfs", check=False).returncode == 0


def versions(machine: Machine) -> set[str]:
    return set(machine.run(f"ls {TEMPLATES}").stdout.split())


def entries(machine: Machine, name: str) -> set[str]:
    """The files in the person's folder: only their system, and no leftovers."""
    return set(machine.run(f"ls -A {folder(name)}").stdout.split())


WHOLE = {"config", "config.provision", "layer", "rootfs"}


def test_set_up_tests_overlay_and_the_server_row_shows_the_result(lab: Lab) -> None:
    assert Iam(lab, lab.servers["gpu17"]).status()["storage"] == "overlay"
    rows = lab.portal.manage(
        "shell", "-c", "from servers.models import Server; print([s.state.storage for s in Server.objects.all()])"
    )
    assert "['overlay', 'overlay']" in rows.stdout


def test_a_clone_is_a_layer_over_a_template_that_others_cannot_read(lab: Lab) -> None:
    register(lab, "alice")
    machine = lab.servers["gpu17"]
    assert is_mounted(machine, "alice")
    shown = machine.run(
        f"stat -c %u {folder('alice')}/rootfs/usr/bin/bash {folder('alice')}/layer/upper"
    ).stdout.split()
    assert len(set(shown)) == 1, "inside, the template belongs to the container's root"
    done = machine.run(f"ls {folder('alice')}/layer/upper/usr/bin/bash", check=False)
    assert "No such file" in done.stderr, "the template was copied"
    done = machine.run("runuser -u alice -- ls /var/lib/lab-iam/templates", check=False)
    assert "Permission denied" in done.stderr


def test_r8_two_containers_share_neither_machine_id_nor_host_keys(lab: Lab) -> None:
    machine = lab.servers["gpu17"]
    for name in ("alice", "bob"):
        register(lab, name)
    for file in ("machine-id", "ssh/ssh_host_ed25519_key.pub", "ssh/ssh_host_ecdsa_key.pub"):
        texts = [machine.file(f"{folder(name)}/rootfs/etc/{file}") for name in ("alice", "bob")]
        assert len(set(texts)) == 2 and all(len(text) > 30 for text in texts), file
    left = machine.run(
        "cd /var/lib/lab-iam/templates; ls */rootfs/etc/ssh/ssh_host_*; cat */rootfs/etc/machine-id", check=False
    )
    assert left.stdout == ""


def test_a_push_mounts_a_root_file_system_that_is_not_mounted(lab: Lab) -> None:
    alice = register(lab, "alice")
    machine = lab.servers["gpu17"]
    alice.ssh("gpu17-manage", "stop")
    machine.run(f"umount {folder('alice')}/rootfs")
    line = alice.make_key("unmounted")
    try:
        answer = Iam(lab, machine).set_keys({"alice": [alice.public_key, line]})
        assert answer.body["users"]["alice"]["container"] == "written", answer.body
        assert line.split()[1] in machine.file(f"{folder('alice')}/rootfs/home/alice/.ssh/authorized_keys")
        machine.run(f"umount {folder('alice')}/rootfs")
        assert machine.run(f"ls -A {folder('alice')}/rootfs").stdout == "", (
            "it wrote to the folder under the mount point"
        )
    finally:
        restore(lab)


def test_after_a_reboot_root_file_systems_are_mounted_before_any_start(lab: Lab) -> None:
    alice = register(lab, "alice")
    alice.ssh("gpu17-manage")
    alice.ssh("gpu17", "sync; echo kept > note; sync")
    machine = lab.servers["gpu17"]
    machine.reboot()
    nvidia.make_devices(machine)
    eventually(lambda: is_mounted(machine, "alice"), "alice's files, mounted")
    assert machine.file(f"{folder('alice')}/rootfs/home/alice/note") == "kept\n"
    alice.ssh("gpu17-manage")
    assert alice.ssh("gpu17", "cat note").stdout == "kept\n"


@pytest.fixture
def newer(lab: Lab) -> Iterator[str]:
    """The version of a newer template, with /opt/newer in it, on gpu18; the lab's own comes back afterwards."""
    register(lab, "alice", "gpu18")  # uses the lab's own, so that it is still needed
    machine = lab.servers["gpu18"]
    # Another zstd frame before the others: a tar member without the zeros that end an archive.
    machine.run(
        f"cd /var/tmp; cp {ARCHIVE} own.tar.zst; mkdir -p new/opt; echo newer > new/opt/newer;"
        f" tar -b1 -c -C new ./opt/newer | head -c -1024 | zstd -q | cat - own.tar.zst > new.tar.zst; mv new.tar.zst {ARCHIVE}"
    )
    try:
        before = versions(machine)
        output = machine.run("/usr/local/sbin/labhost templates").stdout
        (version,) = versions(machine) - before
        assert before < versions(machine) and version in output, "the old template stays"
        yield version
    finally:
        machine.run(f"mv /var/tmp/own.tar.zst {ARCHIVE}; /usr/local/sbin/labhost templates; rm -rf /var/tmp/new")


def test_only_rebuild_moves_a_container_to_a_newer_template(lab: Lab, newer: str) -> None:
    alice = register(lab, "alice", "gpu18")
    machine = lab.servers["gpu18"]
    alice.ssh("gpu18-manage")
    assert alice.ssh("gpu18", "cat /opt/newer", check=False).returncode == 1, (
        "the template of a running container changed"
    )
    alice.ssh("gpu18", "echo mine > note; sudo touch /etc/mine")
    before = machine.file(f"{folder('alice')}/rootfs/etc/machine-id")
    alice.ssh_confirmed("gpu18", "rebuild")
    assert entries(machine, "alice") == WHOLE | {"layer.old"}, "the previous system stays until the first good start"
    (alice.folder / ".ssh/known_hosts").unlink()
    alice.ssh("gpu18-manage")
    assert entries(machine, "alice") == WHOLE
    seen = alice.ssh(
        "gpu18", "cat /opt/newer; sudo -n id -u; ls note /etc/mine 2>/dev/null; cat /etc/machine-id"
    ).stdout
    assert seen.split()[:2] == ["newer", "0"] and len(seen.split()) == 3, "files of the old system remain"
    assert seen.split()[2] != before.strip()
    # The next template replaces the unused one; the one that alice uses stays.
    output = machine.run(f"cp /var/tmp/own.tar.zst {ARCHIVE}; /usr/local/sbin/labhost templates").stdout
    assert newer not in output and newer in versions(machine)
    labhost(lab, "gpu18", "lifecycle.rebuild", "alice")
    alice.ssh("gpu18-manage")
    output = machine.run("/usr/local/sbin/labhost templates").stdout
    assert f"removed {newer}" in output and newer not in versions(machine)
    (alice.folder / ".ssh/known_hosts").unlink()


HARMS = {
    "missing": f"mv {ARCHIVE} {ARCHIVE}.away",
    "damaged": f"mv {ARCHIVE} {ARCHIVE}.away; head -c 5000 {ARCHIVE}.away > {ARCHIVE}",
    "exists": "touch /var/lib/lab-iam/mounts/charlie",  # the clone itself fails, after the account was created
}


def test_r7_a_registration_that_cannot_clone_leaves_nothing(lab: Lab) -> None:
    machine, charlie = lab.servers["gpu18"], lab.people["charlie"]
    if not charlie.config.read_text():
        join(lab, "charlie")
    forget(lab, "charlie", "gpu18")
    machine.run("mkdir -p /var/lib/lab-iam/mounts; rm -rf /var/lib/lab-iam/mounts/charlie")
    for words, harm in HARMS.items():
        machine.run(harm)
        try:
            done = charlie.ssh("register@gpu18-manage", "charlie", check=False)
        finally:
            machine.run(
                f"[ ! -e {ARCHIVE}.away ] || mv {ARCHIVE}.away {ARCHIVE}; rm -f /var/lib/lab-iam/mounts/charlie"
            )
        assert done.returncode == 1 and words in done.stdout + done.stderr, done
        left = machine.run(
            "getent passwd charlie; ls -d /home/charlie /var/lib/lab-iam/users/charlie.json; grep charlie /etc/subuid"
            " /etc/lxc/lxc-usernet /proc/mounts; ls /var/lib/systemd/linger/charlie",
            check=False,
        )
        assert left.stdout == "", (words, left.stdout)


def test_r7_without_a_good_template_rebuild_changes_nothing(lab: Lab) -> None:
    alice = register(lab, "alice", "gpu18")
    machine = lab.servers["gpu18"]
    alice.ssh("gpu18-manage")
    machine.run(f"mv {ARCHIVE} {ARCHIVE}.away")
    try:
        for harm, words in (("true", "missing"), (f"head -c 5000 {ARCHIVE}.away > {ARCHIVE}", "damaged")):
            machine.run(harm)
            done = alice.ssh_confirmed("gpu18", "rebuild", check=False)
            assert done.returncode == 1 and words in done.stdout + done.stderr, done
            assert alice.ssh("gpu18", "true").returncode == 0, "it was stopped without need"
            assert entries(machine, "alice") == WHOLE
    finally:
        machine.run(f"mv {ARCHIVE}.away {ARCHIVE}")


def test_a_new_system_that_does_not_start_is_rolled_back(lab: Lab) -> None:
    alice = register(lab, "alice", "gpu18")
    machine = lab.servers["gpu18"]
    alice.ssh("gpu18-manage")
    alice.ssh("gpu18", "echo precious > note")
    alice.ssh_confirmed("gpu18", "rebuild")
    machine.run(f"rm {folder('alice')}/rootfs/usr/sbin/init")
    done = alice.ssh("gpu18-manage", check=False)
    assert done.returncode == 1 and "the old one was restored" in done.stdout + done.stderr, done
    alice.ssh("gpu18-manage")
    assert alice.ssh("gpu18", "cat note").stdout == "precious\n"
    assert entries(machine, "alice") == WHOLE


def test_a_rebuild_killed_at_any_step_is_completed_by_the_next_start(lab: Lab) -> None:
    alice = register(lab, "alice", "gpu18")
    machine = lab.servers["gpu18"]

    def look(step: str = "") -> None:
        (alice.folder / ".ssh/known_hosts").unlink(missing_ok=True)
        alice.ssh("gpu18-manage")
        assert alice.ssh("gpu18", "sudo -n id -u").stdout.strip() == "0", step
        assert entries(machine, "alice") == WHOLE, step

    look()
    steps = faults.kill_at_each(machine, "alice", labhost_command("lifecycle.rebuild", "alice"), look, look)
    assert {"stop:down", "unfinished", "detached", "slot-empty", "swapped", "exchanged"} <= set(steps)
    look()


def test_r7_unpacking_a_template_that_was_killed_is_completed_by_the_next_run(lab: Lab, newer: str) -> None:
    machine, unpack = lab.servers["gpu18"], f"{faults.LABHOST} templates"
    whole = machine.run(f"find {TEMPLATES}/{newer} | wc -l").stdout
    machine.run(
        f"rm -rf {TEMPLATES}/{newer}; {unpack} & until ls {TEMPLATES}/*.new-*/rootfs/usr/bin/* > /dev/null 2>&1; do sleep 0.01; done;"
        " kill -9 $!; wait || true"
    )
    assert newer not in versions(machine) and len(versions(machine)) > 1, "it was killed in the middle"
    machine.run(unpack)
    assert newer in versions(machine) and not any(".new-" in name for name in versions(machine))
    assert machine.run(f"find {TEMPLATES}/{newer} | wc -l").stdout == whole


def test_a_container_stays_on_its_storage_driver(lab: Lab) -> None:
    machine = lab.servers["gpu18"]
    register(lab, "alice", "gpu18")
    if not lab.people["charlie"].config.read_text():
        join(lab, "charlie")
    forget(lab, "charlie", "gpu18")
    machine.run("/usr/local/sbin/labhost configure container.storage=dir")
    try:
        charlie = register(lab, "charlie", "gpu18")
        assert not is_mounted(machine, "charlie") and is_mounted(machine, "alice")
        charlie.ssh("gpu18-manage")
        assert charlie.ssh("gpu18", "echo x > note; sudo -n id -u").stdout.strip() == "0"
        lab.people["alice"].ssh("gpu18-manage")
        assert lab.people["alice"].ssh("gpu18", "true").returncode == 0
        output = machine.run(
            "/usr/local/sbin/labhost configure container.storage=auto; /usr/local/sbin/labhost check"
        ).stdout
        assert "storage: overlay" in output
        charlie.ssh_confirmed("gpu18", "rebuild")
        (charlie.folder / ".ssh/known_hosts").unlink()
        charlie.ssh("gpu18-manage")
        assert not is_mounted(machine, "charlie")
        assert charlie.ssh("gpu18", "ls -A; sudo -n id -u").stdout.split()[-1] == "0"
        assert "rootfs.old" not in entries(machine, "charlie")
    finally:
        machine.run("/usr/local/sbin/labhost configure container.storage=auto")
        forget(lab, "charlie", "gpu18")
