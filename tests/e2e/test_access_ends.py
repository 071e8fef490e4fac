"""A removed key opens nothing any more: not over a connection that was open, and not because a disk is full."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import is_known, paste, register, remove_key, restore
from tests.lab.person import Person
from tests.lab.shell import Completed, run
from tests.lab.terminal import Terminal
from tests.lab.waiting import eventually
from tests.lab.walk import Walk, body

SECONDS = 10


class Connection:
    """An open connection (a ControlMaster) with one key, over which commands run without signing in again."""

    def __init__(self, person: Person, host: str, key: str) -> None:
        self._person, self._host = person, host
        self._options = ("-o", f"ControlPath={person.folder}/.ssh/{key}-{host}"[-100:])
        person.ssh("-f", "-M", "-N", *self._options, host, key=key)

    def ssh(self, *words: str) -> Completed:
        """A command over this connection, or none at all: without a fallback to a new one."""
        options = (*self._options, "-o", "ProxyCommand=false")
        return self._person.ssh(*options, self._host, *words, check=False)

    @property
    def is_open(self) -> bool:
        return self._person.ssh(*self._options, "-O", "check", self._host, check=False).returncode == 0

    def close(self) -> None:
        self._person.ssh(*self._options, "-O", "exit", self._host, check=False)


def new_key(lab: Lab, person: Person, name: str) -> str:
    """Another key of the person, live on gpu17."""
    line = person.make_key(name)
    paste(lab, person.name, line)
    eventually(
        lambda: person.ssh("gpu17-manage", "status", key=name, check=False).returncode == 0, "a session", SECONDS
    )
    return line


def test_z10_an_open_connection_ends_with_its_key(lab: Lab) -> None:
    alice, bob, machine = register(lab, "alice"), register(lab, "bob"), lab.servers["gpu17"]
    alice.ssh("gpu17-manage")
    line = new_key(lab, alice, "stolen")
    old, others = Connection(alice, "gpu17-manage", "stolen"), Connection(bob, "gpu17-manage", "id_ed25519")
    assert old.ssh("status").returncode == 0 and "running" in old.ssh("status").stdout
    with Terminal(alice.argv("-tt", "gpu17-manage", "console", key="stolen")) as console:
        console.wait_for("# ")
        remove_key(lab, "alice", line)
        eventually(lambda: not is_known(machine, line), "the end of the key", SECONDS)
        eventually(lambda: not old.is_open, "the end of the connection", SECONDS)
        console.end(SECONDS)
    for word in ("stop", "start", "snapshots"):
        assert old.ssh(word).returncode == 255, word
    assert "running" in alice.ssh("gpu17-manage", "status").stdout, "the container was stopped, too"
    assert others.is_open and others.ssh("status").returncode == 0
    assert "lxc-attach" not in machine.run("ps axo args | grep '[l]xc-attach'", check=False).stdout
    others.close()


def test_z10_an_open_connection_to_register_is_worth_nothing_without_its_key(lab: Lab) -> None:
    alice = register(lab, "alice")
    line = new_key(lab, alice, "stolen_too")
    old = Connection(alice, "register@gpu17-manage", "stolen_too")
    assert old.ssh("alice").returncode == 0
    remove_key(lab, "alice", line)
    eventually(lambda: not is_known(lab.servers["gpu17"], line), "the end of the key", SECONDS)
    done = old.ssh("alice")
    assert done.returncode == 2 and "removed" in done.stderr, done
    old.close()


@contextmanager
def read_only(machine: Machine, path: str) -> Iterator[None]:
    machine.run(f"mount --bind {path} {path} && mount -o remount,bind,ro {path}")
    try:
        yield
    finally:
        machine.run(f"umount -l {path}")


def test_z3_a_key_on_a_read_only_home_is_never_reported_as_removed(lab: Lab) -> None:
    alice, bob, machine = register(lab, "alice"), register(lab, "bob"), lab.servers["gpu17"]
    line, other = new_key(lab, alice, "on_read_only"), bob.make_key("meanwhile")
    with read_only(machine, "/home/alice"):
        remove_key(lab, "alice", line)
        paste(lab, "bob", other)
        eventually(lambda: is_known(machine, other), "the key of somebody else", SECONDS)
        assert bob.ssh("gpu17-manage", "status", key="meanwhile").returncode == 0
        assert not is_known(machine, line)
        assert alice.ssh("gpu17-manage", "status", key="on_read_only", check=False).returncode == 0
        rows = Walk(lab).rows(
            "SELECT host FROM servers_placement p JOIN accounts_user u ON u.id = p.user_id "
            "JOIN servers_server s ON s.id = p.server_id WHERE username = 'alice' AND s.name = 'gpu17'"
        )
        assert rows == [("failed",)]
    refused = lambda: alice.ssh("gpu17-manage", "status", key="on_read_only", check=False).returncode == 255  # noqa: E731
    eventually(refused, "a refusal after the next retry", 60)


@contextmanager
def one_small_disk(machine: Machine, inodes: int) -> Iterator[None]:
    """/home and /var/lib/lab-iam are on one file system with little room and few inodes."""
    image = machine.folder / "disk.image"
    with image.open("wb") as stream:
        stream.truncate(1200 << 20)
    run(["mkfs.ext4", "-q", "-N", str(inodes), str(image)])
    device = run(["losetup", "--find", "--show", str(image)]).stdout.strip()
    # From outside: the server itself may open no block devices.
    node = f"mknod /disk.device b 7 {os.minor(Path(device).stat().st_rdev)}"
    mount = f"mkdir -p /disk && {node} && mount /disk.device /disk && rm /disk.device"
    try:
        run(["nsenter", "-t", str(machine.inits[0]), "-m", "--", "bash", "-c", mount])
        machine.run(
            "cp -a --one-file-system /home /disk/home && cp -a --one-file-system /var/lib/lab-iam /disk/lab-iam && "
            "mount --bind /disk/home /home && mount --bind /disk/lab-iam /var/lib/lab-iam"
        )
        yield
    finally:
        machine.run("umount -lR /home; umount -lR /var/lib/lab-iam; umount -lR /disk", check=False)
        run(["losetup", "--detach", device], check=False)
        image.unlink()


FILL = {
    "blocks": "dd if=/dev/zero of=/home/filler bs=64k; sync; dd if=/dev/zero of=/home/filler2 bs=512; sync",
    "inodes": "mkdir /home/filler; cd /home/filler && seq 200000 | xargs touch; sync",
}


def test_z1_a_full_disk_does_not_keep_a_removed_key(lab: Lab) -> None:
    machine = lab.servers["gpu18"]
    inodes = int(machine.run("find /home /var/lib/lab-iam -xdev | wc -l").stdout) + 30_000
    with one_small_disk(machine, inodes):
        charlie = register(lab, "charlie", "gpu18")
        try:
            for what in FILL:
                _fill_and_remove(lab, charlie, machine, what)
        finally:
            machine.run("/usr/local/sbin/labhost remove charlie --purge --yes", check=False)
    restore(lab)  # its own disk has older keys


def _fill_and_remove(lab: Lab, charlie: Person, machine: Machine, what: str) -> None:
    line = charlie.make_key(what)

    def status(key: str) -> int:
        return charlie.ssh("gpu18-manage", "status", key=key, check=False).returncode

    paste(lab, "charlie", line)
    eventually(lambda: status(what) == 0, "a session", 60)  # after a full disk: at the next retry
    assert "#" not in machine.file("/home/charlie/.ssh/authorized_keys")
    machine.run(FILL[what], check=False, timeout=300)
    assert machine.run("echo x > /home/more", check=False).returncode != 0, "there is room left"
    began = time.monotonic()
    remove_key(lab, "charlie", line)
    eventually(lambda: status(what) == 255, "a refusal", SECONDS)
    assert time.monotonic() - began < SECONDS and not is_known(machine, line)
    assert status("id_ed25519") == 0, "the other key went, too"
    in_container = "/home/charlie/.local/share/lxc/charlie/rootfs/home/charlie/.ssh/authorized_keys"
    live = "".join(text for text in machine.file(in_container).splitlines() if not text.startswith("#"))
    assert body(charlie.public_key) in live and body(line) not in live
    machine.run("rm -rf /home/filler /home/filler2 /home/more")
