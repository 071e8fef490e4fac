"""Invalid snapshot names, snapshots of other people, and hostile archives (S1, S2 and S7) on a real server."""

import base64
import hashlib
import io
import json
import tarfile
import time

import pytest

from tests.e2e import snapshots
from tests.e2e.snapshots import ALICE, FOLDER, NAS, SUBUID, WHOLE, init_of
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import labhost, register
from tests.lab.person import Person


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Machine:
    return snapshots.configure(lab)


@pytest.fixture
def alice(lab: Lab, machine: Machine) -> Person:
    return snapshots.alice_without_snapshots(lab, machine)


BOB = ALICE.replace("alice", "bob")
BAD_NAMES = ["../bob/one", "/etc/passwd", "*", "-rf", "--help", "..", "$(id)", "a b", "x" * 65]


@pytest.mark.parametrize("verb", ["snapshot", "recover"])
def test_s1_an_invalid_name_is_refused_by_the_shell_and_by_root(
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


def test_s1_another_persons_snapshot_cannot_be_used(lab: Lab, machine: Machine, alice: Person) -> None:
    bob = register(lab, "bob")
    bob.ssh("gpu17-manage", "snapshot bobs")
    assert "bobs" not in alice.ssh("gpu17-manage", "snapshots").stdout
    done = alice.ssh("gpu17-manage", "recover bobs", check=False)
    assert done.returncode == 3 and "no snapshot" in done.stdout + done.stderr
    assert machine.run(f"stat -c %a:%u {NAS}/gpu17 {BOB} {BOB}/*").stdout.split() == [
        "700:0",
        "700:0",
        "600:0",
        "600:0",
    ]


def plant(machine: Machine, name: str, archive: bytes, template: str) -> None:
    """A snapshot of alice from a hostile NAS, with a correct checksum."""
    manifest = {
        "name": name, "user": "alice", "subuid": int(machine.run(f"echo {SUBUID}").stdout), "server": "gpu17", "created_at": time.time(), "storage": "overlay",
        "template": template, "unpacked": 1, "size": len(archive), "sha256": hashlib.sha256(archive).hexdigest(),
    }  # fmt: skip
    machine.run(f"install -d -m 0700 {ALICE}; base64 -d > {ALICE}/{name}.tar.zst", stdin=encoded(archive))
    machine.run(f"cat > {ALICE}/{name}.json", stdin=json.dumps(manifest))


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
        done = alice.ssh_confirmed("gpu17", f"recover {kind}", check=False)
        assert done.returncode == 1, (kind, done)
        assert machine.run(watched).stdout == before, kind
        assert machine.run(f"ls -A {FOLDER}").stdout.split() == WHOLE, kind
        assert init_of(lab) == running, kind
    assert alice.ssh("gpu17", "sudo -n id -u").stdout.strip() == "0"


def test_s2_a_snapshot_of_a_missing_template_is_refused(machine: Machine, alice: Person) -> None:
    plant(machine, "orphan", packed(machine, ("./fine", tarfile.REGTYPE, "")), "0" * 12)
    done = alice.ssh_confirmed("gpu17", "recover orphan", check=False)
    assert done.returncode == 3 and "needs the template 000000000000" in done.stdout + done.stderr
    alice.ssh("gpu17-manage")
    assert alice.ssh("gpu17", "true").returncode == 0


def test_s7_a_persons_folder_that_is_a_link_is_not_followed(machine: Machine, alice: Person) -> None:
    alice.ssh("gpu17-manage", "snapshot one")
    machine.run(f"rm -rf /root/precious; mv {ALICE} /root/precious; ln -s /root/precious {ALICE}")
    machine.run("touch /root/precious/.mine.tar.zst.new /root/precious/mine.tar.zst")
    before = machine.run("ls -A --full-time /root/precious").stdout
    try:
        for command in ("snapshots", "snapshot two", "recover one"):
            done = alice.ssh("gpu17-manage", command, check=False)
            assert done.returncode == 3 and "must be a folder of root alone" in done.stdout + done.stderr, done
        assert machine.run("ls -A --full-time /root/precious").stdout == before
        report = machine.run("/usr/local/sbin/labhost doctor", check=False).stdout
        assert "is not the private folder of somebody here" in report, report
    finally:
        machine.run(f"rm -rf /root/precious {ALICE}")
