"""Suspension and removal of a person who fights back, on booted servers: cases Z1, Z2 and Z3."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e import snapshots
from tests.lab.faults import LABHOST
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import Answer, Iam, register
from tests.lab.person import Person
from tests.lab.waiting import eventually
from tests.lab.walk import Walk

NAME, SERVER = "charlie", "gpu17"
ANSWER_SECONDS = 15  # without the person's lock it took 120
KEYS = f"/home/{NAME}/.ssh/authorized_keys"


@pytest.fixture
def machine(lab: Lab) -> Machine:
    return snapshots.configure(lab)


@pytest.fixture
def charlie(lab: Lab, machine: Machine) -> Iterator[Person]:
    """Registered and running on gpu17, and unlocked after the test."""
    person = register(lab, NAME, SERVER)
    (person.folder / ".ssh/known_hosts").unlink(missing_ok=True)
    _wait_for_login(person)
    yield person
    for active in (False, True):
        _set_active(lab, active)
    _wait_for_login(person)


def _wait_for_login(person: Person) -> None:
    eventually(lambda: person.ssh(f"{SERVER}-manage", check=False).returncode == 0, "a start of the container", 90)


def _set_active(lab: Lab, active: bool) -> None:
    lab.portal.manage(
        "shell",
        "-c",
        "from accounts.models import User; from accounts.services import people;"
        f" people.set_active(actor='boss', user=User.objects.get(username='{NAME}'), active={active})",
    )


@contextmanager
def held_lock(person: Person, machine: Machine) -> Iterator[subprocess.Popen[bytes]]:
    """One connection over which snapshots follow one another; the one that runs now hangs and holds the lock."""
    control = ["-S", str(person.folder / "master")]
    master = subprocess.Popen(person.argv("-M", *control, "-N", f"{SERVER}-manage"), stdin=subprocess.DEVNULL)
    loop = None
    try:
        eventually(lambda: (person.folder / "master").exists(), "the connection")
        snapshot = " ".join(person.argv(*control, f"{SERVER}-manage", "snapshot s$RANDOM"))
        loop = subprocess.Popen(["bash", "-c", f"while {snapshot}; do :; done"], stdin=subprocess.DEVNULL)
        hang = "pkill -STOP -x tar && sleep 0.5 && pgrep -x tar"
        held = f"{hang} && ! flock -n /var/lib/lab-iam/locks/user-{NAME} true"
        eventually(lambda: machine.run(held, check=False).returncode == 0, "a snapshot that hangs", 60)
        yield master
    finally:
        for process in filter(None, (loop, master)):
            process.kill()
            process.wait()
        machine.run("pkill -KILL -x tar", check=False)


def suspend(lab: Lab, machine: Machine) -> tuple[Answer, float]:
    iam, began = Iam(lab, machine, timeout=200), time.monotonic()
    answer = iam.call("suspend", {"user": NAME, "revision": iam.status()["revision"]})
    return answer, time.monotonic() - began


def state_of(lab: Lab) -> str:
    """As the server reports it."""
    return str(Iam(lab, lab.servers[SERVER]).status()["containers"][NAME]["state"])


def test_z2_a_suspension_does_not_wait_for_the_persons_own_commands(
    lab: Lab, machine: Machine, charlie: Person
) -> None:
    with held_lock(charlie, machine) as master:
        answer, seconds = suspend(lab, machine)
        assert answer.body == {"ok": True, "user": NAME, "version": 1} and seconds < ANSWER_SECONDS, seconds
        assert master.wait(5) == 255
    assert state_of(lab) == "stopped"
    assert machine.run(f"ps -o pid= -u {NAME}", check=False).stdout == ""
    assert charlie.ssh(f"{SERVER}-manage", check=False).returncode == 255
    assert "suspended" in machine.run(f"{LABHOST} start {NAME}", check=False).stdout


def test_z2_a_removal_does_not_wait_for_the_persons_own_commands(lab: Lab, machine: Machine, charlie: Person) -> None:
    with held_lock(charlie, machine) as master:
        began = time.monotonic()
        machine.run(f"{LABHOST} remove {NAME} --yes")
        assert time.monotonic() - began < ANSWER_SECONDS
        assert master.wait(5) == 255
    assert machine.run(f"getent passwd {NAME}", check=False).returncode == 2
    (charlie.folder / ".ssh/known_hosts").unlink(missing_ok=True)
    charlie.ssh(f"register@{SERVER}-manage", NAME, timeout=120)


def test_z2_others_keep_their_sessions(lab: Lab, machine: Machine, charlie: Person) -> None:
    alice = register(lab, "alice", SERVER)
    stays = subprocess.Popen(alice.argv("-N", f"{SERVER}-manage"), stdin=subprocess.DEVNULL)
    try:
        listed = "loginctl show-user alice -p Sessions --value"
        eventually(lambda: machine.run(listed, check=False).stdout.strip(), "Alice's session")
        answer, _ = suspend(lab, machine)
        assert answer.body["ok"] and stays.poll() is None
    finally:
        stays.kill()
        stays.wait()


@pytest.mark.parametrize("verb", ["suspend", "remove"])
def test_z2_what_needs_no_lock_is_done_while_another_command_keeps_it(
    lab: Lab, machine: Machine, charlie: Person, verb: str
) -> None:
    file = f"/var/lib/lab-iam/locks/user-{NAME}"
    machine.run(f"setsid flock --close {file} sleep 61 >/dev/null 2>&1 &")
    try:
        free = f"flock -n {file} true"
        eventually(lambda: machine.run(free, check=False).returncode == 1, "the lock of another command")
        answer = Iam(lab, machine).call(verb, {"user": NAME} | ({"purge": False} if verb == "remove" else {}))
        assert answer.refusal == "busy" and "sessions" not in answer.body["error"]["params"]["left"], answer.body
        assert answer.body["error"]["params"]["cause"] == "lock_held"
        assert state_of(lab) == "stopped" and machine.file(KEYS) == ""
    finally:
        machine.run("pkill -x flock; pkill -f '^sleep 61$'", check=False)


@contextmanager
def read_only(machine: Machine, *folders: str) -> Iterator[None]:
    for folder in folders:
        machine.run(f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}")
    try:
        yield
    finally:
        for folder in folders:
            machine.run(f"umount -l {folder}")  # reconcile may have mounted containers' files below meanwhile


def test_z3_a_key_that_cannot_be_removed_opens_nothing(lab: Lab, machine: Machine, charlie: Person) -> None:
    with read_only(machine, "/home"):
        _set_active(lab, False)
        receipt = "SELECT state FROM servers_containerjob WHERE kind = 'suspend' ORDER BY id DESC LIMIT 1"
        eventually(lambda: Walk(lab).rows(receipt) == [("succeeded",)], "the finished suspension", 60)
        assert machine.file(KEYS), "the key is still on the disk"
        done = charlie.ssh(f"{SERVER}-manage", "status", check=False)
        assert done.returncode != 0 and "port" not in done.stdout
        assert state_of(lab) == "stopped"
    lab.portal.manage("push_keys", SERVER, "--force", "--wait")
    assert machine.file(KEYS) == ""


def test_z3_a_suspension_that_changes_nothing_does_not_answer_ok(lab: Lab, machine: Machine, charlie: Person) -> None:
    with read_only(machine, "/home", "/etc"):
        answer, _ = suspend(lab, machine)
        assert answer.refusal == "busy" and answer.body["error"]["params"]["cause"] == "keys_still_live", answer.body
        assert state_of(lab) == "stopped", "the rest was done"
    answer, _ = suspend(lab, machine)
    assert answer.body["ok"]


def test_z1_a_full_disk_does_not_stop_a_suspension(lab: Lab, machine: Machine, charlie: Person) -> None:
    """The state of labhost is on a file system without a free block or inode."""
    state = "/var/lib/lab-iam"
    machine.run(
        f"mkdir -p /mnt/small && mount -t tmpfs -o size=64m,nr_inodes=4000 none /mnt/small"
        f" && cp -a {state}/users {state}/keys.sqlite3* /mnt/small/ && cp -a {state}/locks /mnt/small/"
        f" && mount --bind /mnt/small {state}"
        f" && {{ head -c 100m /dev/zero >{state}/full 2>/dev/null; for i in $(seq 4000); do : >{state}/$i; done; true; }} 2>/dev/null"
    )
    try:
        answer, _ = suspend(lab, machine)
        params = answer.body["error"]["params"]
        assert answer.refusal == "busy" and params["cause"] == "disk_full", answer.body
        assert "login" not in params["left"] and "stopping" not in params["left"], params
        assert state_of(lab) == "stopped"
        assert charlie.ssh(f"{SERVER}-manage", "status", check=False).returncode == 255
    finally:
        machine.run(f"umount {state}; umount /mnt/small")
