"""Cases S1-S4 on a real server: names, hostile archives, a true round trip, and kills at every step."""

import base64
import hashlib
import io
import json
import tarfile
import time

import pytest

from tests.lab import faults
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import Iam, labhost, labhost_command, register, restore
from tests.lab.person import Person
from tests.lab.walk import Walk

NAS = "/var/lib/nas"
HERS = f"{NAS}/gpu17/alice"
FOLDER = "/home/alice/.local/share/lxc/alice"
WHOLE = ["config", "config.provision", "layer", "rootfs"]


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Machine:
    machine = lab.servers["gpu17"]
    machine.run(
        f"mkdir -p {NAS}; /usr/local/sbin/labhost configure snapshots.folder={NAS} snapshots.keep=3;"
        " /usr/local/sbin/labhost check"
    )
    return machine


@pytest.fixture
def alice(lab: Lab, machine: Machine) -> Person:
    """Alice, whose container runs, without snapshots."""
    alice = register(lab, "alice")
    machine.run(f"rm -rf {HERS}")
    alice.ssh("gpu17-manage")
    return alice


def names(alice: Person) -> list[str]:
    return [line.split()[0] for line in alice.ssh("gpu17-manage", "snapshots").stdout.splitlines() if " MB" in line]


def init_of(lab: Lab) -> str:
    walk = Walk(lab)
    walk.user = "alice"
    return walk.lxc_info("-pH")


BAD_NAMES = ["../bob/one", "/etc/passwd", "*", "-rf", "--help", "..", "$(id)", "a b", "x" * 65]


@pytest.mark.parametrize("verb", ["snapshot", "recover"])
def test_s1_another_name_is_refused_by_the_shell_and_again_by_root(
    lab: Lab, machine: Machine, alice: Person, verb: str
) -> None:
    call = {"snapshot": "snapshots.create", "recover": "snapshots.recover"}[verb]
    running = init_of(lab)
    for name in BAD_NAMES:
        assert alice.ssh("gpu17-manage", "--", f"{verb} {name}", check=False).returncode == 2, name
        done = labhost(lab, "gpu17", f"{call}({name!r})", "alice")
        assert done.returncode == 1 and "not a snapshot's name" in done.stderr, done
    assert init_of(lab) == running
    assert machine.run(f"find {NAS} -type f").stdout == ""


def test_s1_another_persons_snapshot_is_out_of_reach(lab: Lab, machine: Machine, alice: Person) -> None:
    bob = register(lab, "bob")
    bob.ssh("gpu17-manage", "snapshot bobs")
    assert "bobs" not in alice.ssh("gpu17-manage", "snapshots").stdout
    done = alice.ssh("gpu17-manage", "recover bobs", check=False)
    assert done.returncode == 3 and "no snapshot" in done.stdout + done.stderr
    assert machine.run(f"stat -c %a:%u {NAS}/gpu17 {NAS}/gpu17/bob {NAS}/gpu17/bob/*").stdout.split() == [
        "700:0",
        "700:0",
        "600:0",
        "600:0",
    ]


def plant(machine: Machine, name: str, archive: bytes, template: str) -> None:
    """A snapshot of alice's that a hostile NAS put there, its checksum right."""
    manifest = {
        "name": name, "user": "alice", "server": "gpu17", "created_at": time.time(), "storage": "overlay",
        "template": template, "unpacked": 1, "size": len(archive), "sha256": hashlib.sha256(archive).hexdigest(),
    }  # fmt: skip
    machine.run(f"install -d -m 0700 {HERS}; base64 -d > {HERS}/{name}.tar.zst", stdin=encoded(archive))
    machine.run(f"cat > {HERS}/{name}.json", stdin=json.dumps(manifest))


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def packed(machine: Machine, *members: tuple[str, bytes, str]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.uid, info.devmajor, info.devminor = kind, link, 0, 8, 0
            tar.addfile(info)
    done = machine.run("base64 -d | zstd -qc | base64", stdin=encoded(raw.getvalue()))
    return base64.b64decode(done.stdout)


HOSTILE = {
    "absolute": [("/etc/cron.d/evil", tarfile.REGTYPE, "")],
    "up": [("./../../../../../../../../etc/cron.d/evil", tarfile.REGTYPE, "")],
    "symlink": [("./x", tarfile.SYMTYPE, "/etc/cron.d"), ("./x/evil", tarfile.REGTYPE, "")],
    "hard-link": [("./x", tarfile.LNKTYPE, "/etc/shadow")],
    "device": [("./disk", tarfile.BLKTYPE, "")],
    "extra": [("layer/template", tarfile.REGTYPE, "")],
}


def test_s2_a_hostile_archive_changes_nothing(lab: Lab, machine: Machine, alice: Person) -> None:
    watched = "find /etc /root /home/bob -xdev -printf '%p %u %m %s %C@\\n' | sort | md5sum"
    template = machine.file(f"{FOLDER}/layer/template").strip()
    before, running = machine.run(watched).stdout, init_of(lab)
    for kind, members in HOSTILE.items():
        plant(machine, kind, packed(machine, ("./fine", tarfile.REGTYPE, ""), *members), template)
        done = alice.insist("gpu17", f"recover {kind}", check=False)
        assert done.returncode == 1, (kind, done)
        assert machine.run(watched).stdout == before, kind
        assert machine.run(f"ls -A {FOLDER}").stdout.split() == WHOLE, kind
        assert init_of(lab) == running, kind
    assert alice.ssh("gpu17", "sudo -n id -u").stdout.strip() == "0"


def test_s2_a_snapshot_over_a_template_that_is_gone_is_refused(machine: Machine, alice: Person) -> None:
    plant(machine, "orphan", packed(machine, ("./fine", tarfile.REGTYPE, "")), "0" * 12)
    done = alice.insist("gpu17", "recover orphan", check=False)
    assert done.returncode == 3 and "needs the template 000000000000" in done.stdout + done.stderr
    alice.ssh("gpu17-manage")
    assert alice.ssh("gpu17", "true").returncode == 0


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


def test_s3_a_round_trip_brings_everything_back(lab: Lab, machine: Machine, alice: Person) -> None:
    program = f"{FOLDER}/rootfs/srv/s3/ping"
    sudo = "sudo -n sh -s"
    machine.run(f"cp /usr/bin/getfacl /usr/bin/setfacl {FOLDER}/rootfs/usr/local/bin/")  # the template has none
    alice.ssh("gpu17", sudo, stdin=PREPARE)
    subuid = int(machine.run(f"stat -c %u {FOLDER}/layer/upper").stdout)
    capability = "01000003" + "00200000" + "0" * 24 + subuid.to_bytes(4, "little").hex()
    machine.run(f'cp /bin/true {program}; python3 -c "{CAPABILITY}" {program} {capability}')
    before = alice.ssh("gpu17", sudo, stdin=LOOK).stdout
    assert "user:1000:rw-" in before and "default:user:1000:rwx" in before
    said = alice.ssh("gpu17-manage", "snapshot s3").stdout
    assert "MB to pack" in said and "snapshot s3 saved" in said
    alice.ssh("gpu17", "sudo -n rm -rf /srv/s3 /usr/share/doc/bash; sudo -n touch /usr/bin/watch /etc/later")
    alice.insist("gpu17", "recover s3")
    alice.ssh("gpu17-manage")
    assert alice.ssh("gpu17", sudo, stdin=LOOK).stdout == before
    assert alice.ssh("gpu17", "ls /etc/later", check=False).returncode != 0
    attribute = f"python3 -c \"import os; print(os.getxattr('{program}', 'security.capability').hex())\""
    assert machine.run(attribute).stdout.strip() == capability
    assert machine.run(f"ls -A {FOLDER}").stdout.split() == WHOLE


def test_s4_a_damaged_archive_changes_nothing(lab: Lab, machine: Machine, alice: Person) -> None:
    alice.ssh("gpu17-manage", "snapshot one")
    running = init_of(lab)
    machine.run(f"cd {HERS}; printf X | dd of=one.tar.zst bs=1 seek=2000 conv=notrunc status=none")
    done = alice.insist("gpu17", "recover one", check=False)
    assert done.returncode == 1 and "damaged" in done.stdout + done.stderr
    assert init_of(lab) == running
    assert machine.run(f"ls -A {FOLDER}").stdout.split() == WHOLE


def test_s4_a_folder_without_room_or_not_mounted_is_refused_in_clear_words(machine: Machine, alice: Person) -> None:
    machine.run(f"mount -t tmpfs -o size=1m,mode=700 none {NAS}/gpu17")
    try:
        done = alice.ssh("gpu17-manage", "snapshot full", check=False)
        assert done.returncode == 1 and "disk is low" in done.stdout + done.stderr, done
        assert machine.run(f"find {HERS} -type f").stdout == ""
    finally:
        machine.run(f"umount {NAS}/gpu17")
    machine.run(f"mv {NAS}/gpu17 {NAS}/away")
    try:
        done = alice.ssh("gpu17-manage", "snapshot lost", check=False)
        assert done.returncode == 1 and "mounted" in done.stdout + done.stderr, done
    finally:
        machine.run(f"mv {NAS}/away {NAS}/gpu17")


def test_s4_killed_at_every_step_of_a_snapshot_the_old_ones_are_intact(
    lab: Lab, machine: Machine, alice: Person
) -> None:
    alice.ssh("gpu17-manage", "snapshot old")

    def look(step: str = "published") -> None:
        assert names(alice) == (["old", "new"] if step == "published" else ["old"]), step
        machine.run(f"rm -f {HERS}/new.json")  # half a snapshot, as a kill in the middle of a removal leaves it

    steps = faults.kill_at_each(machine, "alice", labhost_command("snapshots.create('new')", "alice"), look, look)
    assert {"packing", "packed", "published"} <= set(steps)
    assert names(alice) == ["old", "new"]
    assert machine.run(f"ls -A {HERS} | wc -l").stdout.strip() == "4", "debris"


def test_s4_killed_at_every_step_of_a_recovery_there_is_one_whole_system(
    lab: Lab, machine: Machine, alice: Person
) -> None:
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


def test_s4_the_server_reboots_in_the_middle_of_a_snapshot(lab: Lab, machine: Machine, alice: Person) -> None:
    alice.ssh("gpu17-manage", "snapshot old")
    faults.lose_current(machine, "alice", labhost_command("snapshots.create('new')", "alice"), "packing")
    alice.ssh("gpu17-manage")
    assert names(alice) == ["old"]
    alice.ssh("gpu17-manage", "snapshot new")
    assert machine.run(f"ls -A {HERS}").stdout.split() == ["new.json", "new.tar.zst", "old.json", "old.tar.zst"]
    alice.insist("gpu17", "recover old")


# Leaves just the room that a snapshot asks for.
BALLAST = f"""free=$(df -m --output=avail {NAS}/gpu17 | tail -n1) needed=$(du -sm {FOLDER}/layer/upper | cut -f1)
head -c $((free - needed - 64 - 10))M /dev/zero > {NAS}/gpu17/ballast
"""
# Takes all room of the folder's file system as soon as there are some megabytes of the snapshot.
FILL = f"""cd {NAS}/gpu17
until [ "$(du -m alice | cut -f1)" -ge 16 ]; do sleep 0.01; done
dd if=/dev/zero of=filler bs=4M status=none
"""


def test_s4_a_file_system_that_fills_up_in_the_middle_of_a_snapshot(machine: Machine, alice: Person) -> None:
    machine.run(f"mount -t tmpfs -o size=512m,mode=700 none {NAS}/gpu17")
    try:
        alice.ssh("gpu17-manage", "snapshot old")
        before = machine.run(f"cd {HERS}; sha256sum *").stdout
        assert before.count("\n") == 2
        alice.ssh("gpu17", "head -c 150M /dev/urandom > noise")
        machine.run(BALLAST)
        machine.run(f"({FILL}) > /dev/null 2>&1 &")
        done = alice.ssh("gpu17-manage", "snapshot full", check=False)
        assert done.returncode == 1 and "No space left" in done.stdout + done.stderr, done
        machine.run(f"rm -f {NAS}/gpu17/filler {NAS}/gpu17/ballast")
        assert machine.run(f"cd {HERS}; sha256sum *").stdout == before, "the old one changed, or debris"
        alice.insist("gpu17", "recover old")
        alice.ssh("gpu17-manage")
        assert alice.ssh("gpu17", "ls noise", check=False).returncode != 0
    finally:
        machine.run(f"umount {NAS}/gpu17")


def test_only_so_many_are_kept(machine: Machine, alice: Person) -> None:
    for name in ("a", "b", "c", "d"):
        alice.ssh("gpu17-manage", f"snapshot {name}")
    assert names(alice) == ["b", "c", "d"]
    assert machine.run(f"ls {HERS} | wc -l").stdout.strip() == "6"
    done = alice.ssh("gpu17-manage", "snapshot d", check=False)
    assert done.returncode == 3 and "already" in done.stdout + done.stderr


def test_a_removed_key_does_not_come_back_with_a_snapshot(lab: Lab, machine: Machine, alice: Person) -> None:
    """Promise 2: what holds is the last push, not what was packed."""
    iam = Iam(lab, machine)
    line = alice.make_key("lost")
    try:
        iam.set_keys({"alice": [alice.public_key, line]})
        assert alice.ssh("gpu17", "true", key="lost").returncode == 0
        alice.ssh("gpu17-manage", "snapshot withkey")
        iam.set_keys({"alice": [alice.public_key]})
        alice.insist("gpu17", "recover withkey")
        alice.ssh("gpu17-manage")
        assert alice.ssh("gpu17", "true", key="lost", check=False).returncode == 255
        assert alice.ssh("gpu17", "true").returncode == 0
    finally:
        restore(lab)
