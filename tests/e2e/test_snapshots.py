"""Snapshots (S3 to S5) on a real server: a round trip, damage, full disks, kills at every step and of tar."""

import pytest

from tests.e2e import snapshots
from tests.e2e.snapshots import ALICE, FOLDER, NAS, WHOLE, init_of, names
from tests.lab import faults
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import Iam, labhost_command, restore
from tests.lab.person import Person
from tests.lab.shell import Completed


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Machine:
    return snapshots.configure(lab)


@pytest.fixture
def alice(lab: Lab, machine: Machine) -> Person:
    return snapshots.alice_without_snapshots(lab, machine)


PREPARE = """set -e
rm -rf /srv/s3; mkdir -p /srv/s3; cd /srv/s3
cp /bin/true program; chown 1000:4 program; chmod 4755 program; ln program second
truncate -s 200M sparse; echo x > plain; mkfifo fifo; ln -s /etc/passwd link
mkdir shared; setfacl -m u:1000:rw,g:4:r plain; setfacl -d -m u:1000:rwx shared
rm -rf /usr/share/doc/bash; mkdir /usr/share/doc/bash; echo own > /usr/share/doc/bash/own
rm -f /usr/bin/watch
"""
LOOK = """cd /srv/s3; stat -c '%n %u:%g %a %h %s %F' *; stat -c %b sparse | awk '{ print $1 < 100 }'
ls /usr/share/doc/bash; ls /usr/bin/watch 2>&1; [ program -ef second ] && echo linked; getfacl -n plain shared; sha256sum program /etc/machine-id
ls /etc/ssh/ssh_host_*; cat /etc/ssh/ssh_host_ed25519_key.pub"""
CAPABILITY = "import os, sys; name, data = sys.argv[1:]; os.setxattr(name, 'security.capability', bytes.fromhex(data))"


def test_s3_a_recovery_restores_everything(lab: Lab, machine: Machine, alice: Person) -> None:
    program = f"{FOLDER}/rootfs/srv/s3/ping"
    sudo = "sudo -n sh -s"
    machine.run(f"cp /usr/bin/getfacl /usr/bin/setfacl {FOLDER}/rootfs/usr/local/bin/")  # the template has none
    alice.ssh("gpu17", sudo, stdin=PREPARE)
    subuid = int(machine.run(f"stat -c %u {FOLDER}/layer/upper").stdout)
    capability = "01000003" + "00200000" + "0" * 24 + subuid.to_bytes(4, "little").hex()
    machine.run(f'cp /bin/true {program}; python3 -c "{CAPABILITY}" {program} {capability}')
    before = alice.ssh("gpu17", sudo, stdin=LOOK).stdout
    assert "user:1000:rw-" in before and "default:user:1000:rwx" in before
    output = alice.ssh("gpu17-manage", "snapshot s3").stdout
    assert "MB to pack" in output and "snapshot s3 saved" in output
    alice.ssh("gpu17", "sudo -n rm -rf /srv/s3 /usr/share/doc/bash; sudo -n touch /usr/bin/watch /etc/later")
    alice.ssh_confirmed("gpu17", "recover s3")
    alice.ssh("gpu17-manage")
    assert alice.ssh("gpu17", sudo, stdin=LOOK).stdout == before
    assert alice.ssh("gpu17", "ls /etc/later", check=False).returncode != 0
    attribute = f"python3 -c \"import os; print(os.getxattr('{program}', 'security.capability').hex())\""
    assert machine.run(attribute).stdout.strip() == capability
    assert machine.run(f"ls -A {FOLDER}").stdout.split() == WHOLE


def test_s4_a_damaged_archive_changes_nothing(lab: Lab, machine: Machine, alice: Person) -> None:
    alice.ssh("gpu17-manage", "snapshot one")
    running = init_of(lab)
    machine.run(f"cd {ALICE}; printf X | dd of=one.tar.zst bs=1 seek=2000 conv=notrunc status=none")
    done = alice.ssh_confirmed("gpu17", "recover one", check=False)
    assert done.returncode == 1 and "damaged" in done.stdout + done.stderr
    assert init_of(lab) == running
    assert machine.run(f"ls -A {FOLDER}").stdout.split() == WHOLE


def test_s4_a_full_or_unmounted_folder_is_refused_with_a_clear_message(machine: Machine, alice: Person) -> None:
    machine.run(f"mount -t tmpfs -o size=1m,mode=700 none {NAS}/gpu17")
    try:
        done = alice.ssh("gpu17-manage", "snapshot full", check=False)
        assert done.returncode == 1 and "disk is low" in done.stdout + done.stderr, done
        assert machine.run(f"find {ALICE} -type f").stdout == ""
    finally:
        machine.run(f"umount {NAS}/gpu17")
    machine.run(f"mv {NAS}/gpu17 {NAS}/away")
    try:
        done = alice.ssh("gpu17-manage", "snapshot lost", check=False)
        assert done.returncode == 1 and "mounted" in done.stdout + done.stderr, done
    finally:
        machine.run(f"mv {NAS}/away {NAS}/gpu17")


def test_s4_a_snapshot_killed_at_any_step_leaves_the_old_ones_intact(lab: Lab, machine: Machine, alice: Person) -> None:
    alice.ssh("gpu17-manage", "snapshot old")

    def look(step: str = "published") -> None:
        assert names(alice) == (["old", "new"] if step == "published" else ["old"]), step
        machine.run(f"rm -f {ALICE}/new.json")  # an incomplete snapshot, as a kill during a removal leaves it

    steps = faults.kill_at_each(machine, "alice", labhost_command("snapshots.create('new')", "alice"), look, look)
    assert {"packing", "packed", "published"} <= set(steps)
    assert names(alice) == ["old", "new"]
    assert machine.run(f"ls -A {ALICE} | wc -l").stdout.strip() == "4", "leftovers"


def test_s4_a_recovery_killed_at_any_step_leaves_one_whole_system(lab: Lab, machine: Machine, alice: Person) -> None:
    alice.ssh("gpu17", "echo old > note")
    alice.ssh("gpu17-manage", "snapshot old")

    def look(step: str = "") -> None:
        alice.ssh("gpu17-manage")
        seen = alice.ssh("gpu17", "cat note; echo newer > note").stdout.strip()
        assert not step or seen == ("old" if step in ("swapped", "exchanged") else "newer"), step
        assert machine.run(f"ls -A {FOLDER}").stdout.split() == WHOLE, step

    look()
    steps = faults.kill_at_each(machine, "alice", labhost_command("snapshots.recover('old')", "alice"), look, look)
    assert {"stop:down", "unfinished", "detached", "slot-empty", "swapped", "exchanged"} <= set(steps)
    assert names(alice) == ["old"]


def kill_tar(machine: Machine, option: str, command: str) -> Completed:
    """Kills the tar with this option as soon as `command` runs it, as the kernel does when memory is short."""
    killer = f"for i in {{1..6000}}; do pid=$(pgrep -x -f '/usr/bin/tar .*--{option} .*') && break; done; kill -9 $pid"
    return machine.run(f"({killer}) > /dev/null 2>&1 & {command}", check=False)


def test_s5_a_tar_that_is_killed_loses_nothing(machine: Machine, alice: Person) -> None:
    alice.ssh("gpu17", "echo old > note; head -c 100M /dev/urandom > noise")
    alice.ssh("gpu17-manage", "snapshot old")
    before = machine.run(f"cd {ALICE}; sha256sum *").stdout
    alice.ssh("gpu17", "echo newer > note")
    done = kill_tar(machine, "create", labhost_command("snapshots.create('new')", "alice"))
    assert done.returncode == 1 and "nothing was saved" in done.stdout + done.stderr, done
    done = kill_tar(machine, "extract", labhost_command("snapshots.recover('old')", "alice"))
    assert done.returncode == 1 and "cannot be unpacked" in done.stdout + done.stderr, done
    assert machine.run(f"cd {ALICE}; sha256sum *").stdout == before
    assert alice.ssh("gpu17", "cat note").stdout == "newer\n"
    assert machine.run(f"ls -A {FOLDER}").stdout.split() == WHOLE
    alice.ssh_confirmed("gpu17", "recover old")
    alice.ssh("gpu17-manage")
    assert alice.ssh("gpu17", "cat note; wc -c < noise; rm noise").stdout == f"old\n{100 << 20}\n"


def test_s4_the_server_reboots_in_the_middle_of_a_snapshot(lab: Lab, machine: Machine, alice: Person) -> None:
    alice.ssh("gpu17-manage", "snapshot old")
    faults.lose_current(machine, "alice", labhost_command("snapshots.create('new')", "alice"), "packing")
    alice.ssh("gpu17-manage")
    assert names(alice) == ["old"]
    alice.ssh("gpu17-manage", "snapshot new")
    assert machine.run(f"ls -A {ALICE}").stdout.split() == ["new.json", "new.tar.zst", "old.json", "old.tar.zst"]
    alice.ssh_confirmed("gpu17", "recover old")


# Leaves just the space that a snapshot requires.
BALLAST = f"""free=$(df -m --output=avail {NAS}/gpu17 | tail -n1) needed=$(du -sm {FOLDER}/layer/upper | cut -f1)
head -c $((free - needed - 64 - 10))M /dev/zero > {NAS}/gpu17/ballast
"""
# Fills the folder's file system as soon as some megabytes of the snapshot are written.
FILL = f"""cd {NAS}/gpu17
until [ "$(du -m {ALICE} | cut -f1)" -ge 16 ]; do sleep 0.01; done
dd if=/dev/zero of=filler bs=4M status=none
"""


def test_s4_the_file_system_fills_up_in_the_middle_of_a_snapshot(machine: Machine, alice: Person) -> None:
    machine.run(f"mount -t tmpfs -o size=512m,mode=700 none {NAS}/gpu17")
    try:
        alice.ssh("gpu17-manage", "snapshot old")
        before = machine.run(f"cd {ALICE}; sha256sum *").stdout
        assert before.count("\n") == 2
        alice.ssh("gpu17", "head -c 150M /dev/urandom > noise")
        machine.run(BALLAST)
        machine.run(f"({FILL}) > /dev/null 2>&1 &")
        done = alice.ssh("gpu17-manage", "snapshot full", check=False)
        assert done.returncode == 1 and "the disk is full" in done.stdout + done.stderr, done
        machine.run(f"rm -f {NAS}/gpu17/filler {NAS}/gpu17/ballast")
        assert machine.run(f"cd {ALICE}; sha256sum *").stdout == before, "the old one changed, or there are leftovers"
        alice.ssh_confirmed("gpu17", "recover old")
        alice.ssh("gpu17-manage")
        assert alice.ssh("gpu17", "ls noise", check=False).returncode != 0
    finally:
        machine.run(f"umount {NAS}/gpu17")


def test_the_number_of_snapshots_is_limited(machine: Machine, alice: Person) -> None:
    for name in ("a", "b", "c", "d"):
        alice.ssh("gpu17-manage", f"snapshot {name}")
    assert names(alice) == ["b", "c", "d"]
    assert machine.run(f"ls {ALICE} | wc -l").stdout.strip() == "6"
    done = alice.ssh("gpu17-manage", "snapshot d", check=False)
    assert done.returncode == 3 and "already" in done.stdout + done.stderr


def test_a_recovery_does_not_restore_a_removed_key(lab: Lab, machine: Machine, alice: Person) -> None:
    """The keys of the last push apply, not those in the snapshot."""
    iam = Iam(lab, machine)
    line = alice.make_key("lost")
    try:
        iam.set_keys({"alice": [alice.public_key, line]})
        assert alice.ssh("gpu17", "true", key="lost").returncode == 0
        alice.ssh("gpu17-manage", "snapshot withkey")
        iam.set_keys({"alice": [alice.public_key]})
        alice.ssh_confirmed("gpu17", "recover withkey")
        alice.ssh("gpu17-manage")
        assert alice.ssh("gpu17", "true", key="lost", check=False).returncode == 255
        assert alice.ssh("gpu17", "true").returncode == 0
    finally:
        restore(lab)
