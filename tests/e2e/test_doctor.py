"""`labhost doctor`: each difference is made on a booted server, reported, fixed, and then gone."""

import json

import pytest

from tests.lab.faults import LABHOST
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import join
from tests.lab.shell import Completed

NAME = "charlie"
FOLDER = f"/home/{NAME}/.local/share/lxc/{NAME}"
JOURNAL = f"/var/lib/lab-iam/users/{NAME}.json"

# What breaks it -> the finding of the doctor. All of these at once, so that one run must fix them all.
SMALL = {
    f"usermod -s /bin/bash {NAME}": "the login shell is /bin/bash",
    f"echo {NAME}:secret | chpasswd": "the account has a password",
    f"gpasswd -d {NAME} sudo": "not in the group sudo",
    f"chmod 777 /home/{NAME}/.local": f"owner or mode of /home/{NAME}/.local is wrong",
    f"chown {NAME} /home/{NAME}/.ssh": f"owner or mode of /home/{NAME}/.ssh is wrong",
    f"echo 'ssh-ed25519 AAAA evil' >> /home/{NAME}/.ssh/authorized_keys": "authorized_keys on the server differ",
    f"truncate -s 0 {FOLDER}/rootfs/home/{NAME}/.ssh/authorized_keys": "authorized_keys in the container differ",
    "echo >> /home/register/.ssh/authorized_keys": "the authorized_keys of register differ",
    f"echo lxc.x=1 >> {FOLDER}/config": "configuration was changed",
    f"sed -i '/^{NAME} /d' /etc/lxc/lxc-usernet": "lxc-usernet does not allow",
    "iptables -t nat -A LAB-IAM-PRE -p tcp --dport 2222 -j DNAT --to-destination 10.0.3.99:22": "1 unexpected",
    "iptables -t nat -D OUTPUT -j LAB-IAM-OUT": "1 chains not in use",
    f"echo 0 > /proc/sys/net/ipv6/conf/lxc-u$(id -u {NAME})/disable_ipv6": "is wrong: disable_ipv6",
    "ip link add lxc-u9 type bridge": "the bridge lxc-u9 belongs to nobody",
    "iptables -t mangle -F LAB-IAM-FROM": "filters of the containers' bridges are not set",
    "chmod 777 /public/login.bash": "/public/login.bash can be changed by others",
    "chown daemon /usr/local/lib/lab-iam/labhost/cli.py": "labhost/cli.py can be changed by others",
    "mkdir -p /home/.lab-iam-kept; chmod 755 /home/.lab-iam-kept": "can read the files of removed people",
    "touch /etc/lxc/.lxc-usernet.lab-iam-new": ".lxc-usernet.lab-iam-new was left by an interrupted write",
}
# Each alone, because it hides or causes others.
LARGE = {
    "account": (f"pkill -9 -u {NAME}; sleep 0.5; userdel -f {NAME}", "the account is missing"),
    "subids": (f"sed -i '/^{NAME}:/d' /etc/subuid /etc/subgid", "no subordinate ids in /etc/subuid"),
    "orphan": (f"rm {JOURNAL}", "there is an account but no journal"),
    "damaged": (f"echo half > {JOURNAL}", "the journal cannot be read"),
    "port": (f'sed -i \'s/"port": [0-9]*/"port": 22999/\' {JOURNAL}', "at the portal"),
    "crashed": (f"pkill -9 -f 'lxc monitor.* {NAME}'; sleep 0.5", "the container should be running"),
    "unwanted": (f'sed -i \'s/"running"/"stopped"/\' {JOURNAL}', "the container should be stopped"),
    "registration": (
        f'sed -i \'s/"registered": true/"registered": false/\' {JOURNAL}',
        "a registration was interrupted",
    ),
    "removal": (f"LABHOST_FAILPOINT=remove:data {LABHOST} remove {NAME} --yes", "a removal was interrupted"),
}


def doctor(machine: Machine, *options: str) -> Completed:
    return machine.run(f"{LABHOST} doctor {' '.join(options)}", check=False)


def lines(done: Completed) -> list[str]:
    """What doctor printed, but for what the kernel of this machine lacks."""
    return [line for line in done.stdout.splitlines() if not line.startswith("note: containers are not limited here")]


@pytest.fixture
def machine(lab: Lab) -> Machine:
    """gpu18, where charlie's container runs and nothing is wrong."""
    if not lab.people[NAME].config.read_text():
        join(lab, NAME)
    machine = lab.servers["gpu18"]
    machine.run(f"/root/new-lxc.bash {NAME} && {LABHOST} start {NAME}")
    done = doctor(machine)
    assert (done.returncode, lines(done)) == (0, ["no problems found"]), done.stdout
    return machine


def is_fixed(machine: Machine) -> None:
    done = doctor(machine, "--fix")
    assert done.returncode == 0, done.stdout + done.stderr
    again = doctor(machine, "--fix")
    assert (again.returncode, lines(again)) == (0, ["no problems found"]), again.stdout


def test_many_small_differences_are_reported_and_fixed(lab: Lab, machine: Machine) -> None:
    machine.run("\n".join(["set -e", *SMALL]))
    found = doctor(machine)
    assert found.returncode == 1
    lines = found.stdout.splitlines()
    for command, words in SMALL.items():
        assert [line for line in lines if words in line and "; fix: " in line], f"{command}: {found.stdout}"
    assert len(lines) <= len(SMALL) + 1, lines
    assert not any("evil" in line for line in lines)
    is_fixed(machine)
    assert machine.status("/public/login.bash") == "root root 755"
    assert machine.run("getent shadow charlie").stdout.split(":")[1] == "*"
    assert lab.people[NAME].ssh("gpu18", "id -un").stdout.strip() == NAME


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_difference_is_reported_and_fixed(lab: Lab, machine: Machine, kind: str) -> None:
    command, words = LARGE[kind]
    machine.run(command, check=False)
    found = doctor(machine)
    assert found.returncode == 1 and words in found.stdout, found.stdout
    is_fixed(machine)
    exists = machine.run(f"getent passwd {NAME}", check=False).stdout
    assert bool(exists) == (kind != "removal")


def test_differences_for_a_human_are_reported_and_not_fixed(lab: Lab, machine: Machine) -> None:
    machine.run("echo mallory:$(grep ^charlie: /etc/subuid | cut -d: -f2):10 >> /etc/subuid")
    try:
        done = doctor(machine, "--fix")
        assert done.returncode == 1 and "assigns some of the same ids to mallory; by hand:" in done.stdout
    finally:
        machine.run("sed -i /^mallory:/d /etc/subuid")


def test_json_is_one_object_and_wrong_usage_is_reported(lab: Lab, machine: Machine) -> None:
    machine.run("touch /etc/lxc/.x.lab-iam-new")
    answer = json.loads(doctor(machine, "--json").stdout)
    assert not answer["ok"] and answer["findings"][0]["fix"] == "temporary_file"
    answer = json.loads(doctor(machine, "--json", "--fix").stdout)
    assert answer["ok"] and answer["findings"] == [] and answer["fixed"][0]["fix"] == "temporary_file"
    assert doctor(machine, "--frobnicate").returncode == 2


def test_with_the_portal_down_local_checks_still_run(lab: Lab, machine: Machine) -> None:
    lab.portal.web.stop()
    try:
        done = doctor(machine)
        assert done.returncode == 0 and "note: not everybody was compared with the portal" in done.stdout
    finally:
        lab.portal.start_web()
