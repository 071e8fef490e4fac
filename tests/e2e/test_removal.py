"""Removal from a server: by staff on it, by `manage.py` and by the admin; what is removed, in which order, and what stays."""

import subprocess
import time

import pytest

from tests.lab.faults import LABHOST
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import Iam, register
from tests.lab.person import Person
from tests.lab.waiting import eventually
from tests.lab.walk import Walk

NAME = "charlie"


@pytest.fixture
def charlie(lab: Lab) -> Person:
    """Registered and running on gpu18."""
    person = register(lab, NAME, "gpu18")
    (person.folder / ".ssh/known_hosts").unlink(missing_ok=True)
    person.ssh("gpu18-manage")
    return person


def left_of(machine: Machine) -> str:
    """Entries of this person in the files of the server."""
    traces = f"getent passwd {NAME}; ls -d /home/{NAME}; grep -h ^{NAME} /etc/subuid /etc/subgid /etc/lxc/lxc-usernet"
    return machine.run(f"{{ {traces}; }} 2>/dev/null", check=False).stdout


def test_live_sessions_are_cut_and_the_port_leads_nowhere(lab: Lab, charlie: Person) -> None:
    machine = lab.servers["gpu18"]
    walk = Walk(lab)
    walk.user = NAME
    inside = subprocess.Popen(charlie.argv("gpu18", "sleep 300"), stdin=subprocess.DEVNULL)
    # A login to the server itself that stays open, because it sends no command.
    outside = subprocess.Popen(charlie.argv("-N", "gpu18-manage"), stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: "sleep 300" in machine.run("ps -eo args").stdout, "the session in the container")
        sessions = f"loginctl show-user {NAME} -p Sessions --value"
        eventually(lambda: machine.run(sessions, check=False).stdout.strip(), "the session on the server")
        machine.run(f"{LABHOST} remove {NAME} --yes")
        assert inside.wait(10) == 255 and outside.wait(10) == 255
    finally:
        inside.kill()
        outside.kill()
    assert left_of(machine) == ""
    assert f"--dport {walk.port} " not in machine.run("iptables-save -t nat").stdout
    assert machine.run(f"ps -eo uid= | awk '$1 >= {walk.subuid} && $1 < {walk.subuid} + 65536'").stdout == ""
    assert machine.run("ls /var/lib/systemd/linger").stdout.split().count(NAME) == 0
    assert charlie.ssh("gpu18-manage", "status", check=False).returncode == 255


def test_the_files_stay_for_root_only_and_the_person_can_register_again(lab: Lab, charlie: Person) -> None:
    machine = lab.servers["gpu18"]
    charlie.ssh("gpu18", "echo precious > ~/note")
    output = machine.run(f"{LABHOST} remove {NAME} --yes").stdout
    kept = output.rpartition("kept in: ")[2].strip().split(", ")[-1]
    assert machine.status("/home/.lab-iam-kept") == "root root 700"
    assert machine.run(f"find {kept} -path '*/home/{NAME}/note' -exec cat {{}} +").stdout == "precious\n"
    (charlie.folder / ".ssh/known_hosts").unlink(missing_ok=True)
    again = charlie.ssh("register@gpu18-manage", NAME, timeout=120)
    assert kept in again.stdout + again.stderr
    charlie.ssh("gpu18-manage")
    assert charlie.ssh("gpu18", "ls ~").stdout == ""


def test_registering_again_at_once_restores_the_uid_and_logind_is_idle(lab: Lab, charlie: Person) -> None:
    """Under another uid, linger would keep logind's record of the old one, and logind and systemd would stay busy."""
    machine = lab.servers["gpu18"]
    uid = machine.run(f"id -u {NAME}").stdout
    machine.run(f"{LABHOST} remove {NAME} --yes")
    register(lab, NAME, "gpu18")
    charlie.ssh("gpu18-manage")
    spent = "systemctl show systemd-logind --property CPUUsageNSec --value"
    before = int(machine.run(spent).stdout)
    time.sleep(3)  # a logind in an endless loop uses nearly all of it
    assert int(machine.run(spent).stdout) - before < 1.5e9, "logind is busy"
    assert machine.run("timeout 5 loginctl list-users --no-legend").stdout.count(NAME) == 1
    assert machine.run(f"id -u {NAME}").stdout == uid


def test_purge_deletes_only_the_files_of_that_person(lab: Lab, charlie: Person) -> None:
    machine = lab.servers["gpu18"]
    machine.run("mkdir -p /srv/precious && echo host > /srv/precious/file && chmod -R 777 /srv/precious")
    charlie.ssh("gpu18", "sudo ln -s /srv/precious /home/charlie/link; sudo mkdir -p /a/b; sudo ln -s / /a/b/root")
    machine.run(f"{LABHOST} remove {NAME} --yes --purge")
    assert left_of(machine) == ""
    assert machine.run(f"ls -d /home/.lab-iam-kept/{NAME}-*", check=False).stdout == ""
    assert machine.file("/srv/precious/file") == "host\n"


def test_c3_c4_the_numbers_of_a_removed_person_are_never_reused_on_the_server(lab: Lab, charlie: Person) -> None:
    machine = lab.servers["gpu18"]
    machine.run(f"{LABHOST} remove {NAME} --yes")
    stone = machine.run(f"ls /var/lib/lab-iam/removed/{NAME}.*.json").stdout.strip()
    zoe = stone.replace(NAME, "zoe")
    machine.run(f"sed 's/{NAME}/zoe/' {stone} > {zoe}; mv {stone} {stone}.away")
    try:
        answer = Iam(lab, machine).call("register", {"user": NAME})
        assert answer.refusal == "refused" and "zoe" in answer.body["error"]["params"].values(), answer.body
        assert left_of(machine) == ""
    finally:
        machine.run(f"rm {zoe}; mv {stone}.away {stone}")


def test_the_portal_removes_a_container_and_shows_the_progress(lab: Lab, charlie: Person) -> None:
    machine = lab.servers["gpu18"]
    output = lab.portal.manage("remove_container", "gpu18", NAME, "--yes").stdout
    assert "[1/13] recording the removal" in output and f"{NAME} removed from gpu18" in output
    assert left_of(machine) == ""
    walk = Walk(lab)
    rows = walk.rows("SELECT state, kind, log FROM servers_containerjob ORDER BY id DESC LIMIT 1")
    assert rows[0][:2] == ("succeeded", "remove") and "[13/13]" in rows[0][2]
    assert "charlie removed from gpu18" in lab.portal.manage("remove_container", "gpu18", NAME, "--yes").stdout


def test_o1_a_removal_waits_for_a_server_that_is_down(lab: Lab, charlie: Person) -> None:
    machine = lab.servers["gpu18"]
    machine.run("systemctl stop ssh")
    try:
        refused = lab.portal.manage("remove_container", "gpu18", NAME, "--yes", check=False)
        assert refused.returncode == 1
    finally:
        machine.run("systemctl start ssh")
    waiting = Walk(lab).rows(
        "SELECT id, state FROM servers_containerjob WHERE kind = 'remove' ORDER BY id DESC LIMIT 1"
    )
    assert waiting[0][1] == "queued", "the worker retries it"
    lab.portal.manage("remove_container", "gpu18", NAME, "--yes")
    assert left_of(machine) == ""
    done = Walk(lab).rows("SELECT id, state FROM servers_containerjob WHERE kind = 'remove' ORDER BY id DESC LIMIT 1")
    assert done == [(waiting[0][0], "succeeded")]


def test_y4_a_push_during_a_removal_restores_no_key(lab: Lab, charlie: Person) -> None:
    machine = lab.servers["gpu18"]
    machine.run(f"LABHOST_FAILPOINT=remove:keys {LABHOST} remove {NAME} --yes", check=False)
    lab.portal.manage("push_keys", "gpu18", "--force", "--wait")
    assert machine.file(f"/home/{NAME}/.ssh/authorized_keys") == ""
    assert machine.run(f"getent passwd {NAME}").stdout.strip().endswith("/nologin")
    machine.run(f"{LABHOST} remove {NAME} --yes")
    assert left_of(machine) == ""


def test_a_hostile_request_removes_nothing(lab: Lab, charlie: Person) -> None:
    machine = lab.servers["gpu18"]
    iam = Iam(lab, machine)
    before = machine.run("md5sum /etc/passwd /etc/shadow /etc/subuid; ls /home").stdout
    for user in ("root", "iam", "register", "daemon", "../charlie", "-rf", "", "Charlie", NAME + "\n"):
        answer = iam.call("remove", {"user": user, "purge": True})
        assert answer.code == 1 and answer.refusal == ("not_registered" if user == "daemon" else "refused"), answer.body
    malformed: list[dict[str, object]] = [
        {"user": 17, "purge": True},
        {"user": None, "purge": True},
        {"user": NAME},
        {"user": NAME, "purge": "yes"},
    ]
    for request in malformed:
        assert iam.call("remove", request).refusal == "bad_request", request
    assert machine.run("md5sum /etc/passwd /etc/shadow /etc/subuid; ls /home").stdout == before


def test_another_account_of_the_host_is_never_removed(lab: Lab) -> None:
    machine = lab.servers["gpu18"]
    machine.run("useradd -m -s /bin/bash boss")
    try:
        assert Iam(lab, machine).call("remove", {"user": "boss", "purge": True}).refusal == "not_registered"
        assert machine.run("getent passwd boss; ls -d /home/boss").stdout.count("boss") >= 2
    finally:
        machine.run("userdel -r boss", check=False)


def test_without_a_terminal_there_is_no_question_at_the_command(lab: Lab, charlie: Person) -> None:
    machine = lab.servers["gpu18"]
    done = machine.run(f"{LABHOST} remove {NAME} < /dev/null", check=False)
    assert done.returncode == 1 and "--yes" in done.stdout
    assert left_of(machine)


def test_o1_a_locked_out_person_is_suspended_and_can_return(lab: Lab, charlie: Person) -> None:
    machine = lab.servers["gpu18"]
    inside = subprocess.Popen(charlie.argv("gpu18", "sleep 300"), stdin=subprocess.DEVNULL)
    eventually(lambda: "sleep 300" in machine.run("ps -eo args").stdout, "the session in the container")
    walk = Walk(lab)
    walk.user, walk.server = NAME, machine
    _set_active(lab, False)
    try:
        assert inside.wait(60) == 255
        eventually(lambda: walk.container_state() == "STOPPED", "the stop of the container", 60)
        assert f"--dport {walk.port} " not in machine.run("iptables-save -t nat").stdout
        assert charlie.ssh("gpu18-manage", "status", check=False).returncode == 255
        assert machine.run(f"test -d {walk.rootfs}/home/{NAME}", check=False).returncode == 0
        receipt = "SELECT state FROM servers_containerjob WHERE kind = 'suspend' AND log LIKE '%sessions%'"
        eventually(lambda: ("succeeded",) in walk.rows(receipt), "the finished suspension")
    finally:
        inside.kill()
        _set_active(lab, True)
    eventually(lambda: charlie.ssh("gpu18-manage", check=False).returncode == 0, "the keys are pushed again", 60)
    assert charlie.ssh("gpu18", "id -un").stdout.strip() == NAME


def _set_active(lab: Lab, active: bool) -> None:
    """As the admin's action does."""
    lab.portal.manage(
        "shell",
        "-c",
        "from accounts.models import User; from accounts.services import people;"
        f" people.set_active(actor='boss', user=User.objects.get(username='{NAME}'), active={active})",
    )
