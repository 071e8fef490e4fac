"""Cases R1-R3, R5 and R6: what reaches the `register` account. R4 is in test_killed.py."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab.lab import PEOPLE, Lab
from tests.lab.people import Iam, join, paste, register
from tests.lab.waiting import eventually
from tests.lab.walk import Walk

HOSTILE = ["; id", "$(id)", "`id`", "alice\nid", "alice; id", "alice bob", "../alice", "-rf", "", "*", "x" * 100_000]
NAMES = ["root", "iam", "register", "daemon", "lab-iam", "-rf", "..", "a" * 33, "Alice", "alice/bob", "al ice"]


@pytest.mark.parametrize("words", HOSTILE, ids=lambda words: repr(words[:12]))
def test_r1_nothing_is_executed_and_the_message_is_clear(lab: Lab, words: str) -> None:
    alice = register(lab, "alice")
    before = len(Walk(lab).commands_by("register"))
    done = alice.ssh("register@gpu17-manage", "--", words, check=False)
    assert done.returncode != 0
    assert "uid=" not in done.stdout + done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line]
    assert len(lines) <= 3 and "ssh register@" in " ".join(lines), lines
    assert len(Walk(lab).commands_by("register")) == before, "sudo was called"


def test_r2_a_key_registers_only_its_owner(lab: Lab) -> None:
    alice = register(lab, "alice")
    done = alice.ssh("register@gpu17-manage", "bob", check=False)
    assert done.returncode not in (0, 255)
    assert "alice" in done.stdout + done.stderr


FORWARDS = {
    "tcp": ("-W", "127.0.0.1:22"),
    "remote": ("-o", "ExitOnForwardFailure=yes", "-N", "-R", "127.0.0.1:2298:127.0.0.1:22"),
    "sftp": ("-s",),
}


@pytest.mark.parametrize("kind", ["tcp", "remote", "sftp"])
@pytest.mark.parametrize("account", ["register", "alice"])
def test_r3_forwarding_and_sftp_are_refused(lab: Lab, account: str, kind: str) -> None:
    alice = register(lab, "alice")
    target = f"{account}@gpu17-manage"
    command = ("sftp",) if kind == "sftp" else ()
    # A forwarding that worked would stay open until the time limit and raise CommandFailed.
    done = alice.ssh(*FORWARDS[kind], target, *command, check=False, timeout=20)
    assert done.returncode != 0
    assert "SSH-2.0" not in done.stdout


@pytest.mark.parametrize("kind", ["tcp", "remote", "sftp"])
def test_r3_the_account_iam_forwards_nothing(lab: Lab, kind: str) -> None:
    iam = Iam(lab, lab.servers["gpu17"])
    done = iam.ssh("sftp" if kind == "sftp" else "", "", *FORWARDS[kind])
    assert done.returncode != 0 and "SSH-2.0" not in done.stdout


def test_r3_scp_is_refused(lab: Lab) -> None:
    alice = register(lab, "alice")
    for account in ("register", "alice"):
        done = alice.ssh(f"{account}@gpu17-manage", "scp -t /tmp/x", check=False)
        assert done.returncode == 2


# Processes of alice's open session on the server, whatever their uid.
ENVIRONMENTS = """
cd /proc
grep -lzx USER=alice [0-9]*/environ 2>/dev/null | xargs grep -lz ^SSH_CONNECTION= | xargs cat | tr '\\0' '\\n'
"""


def test_r3_agent_and_x11_are_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alice, machine = register(lab, "alice"), lab.servers["gpu17"]
    alice.ssh("gpu17-manage")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    monkeypatch.setenv("DISPLAY", "127.0.0.1:99")
    try:
        eventually((tmp_path / "agent").is_socket, "the agent")
        with alice.on_a_terminal("-A", "-X", "gpu17-manage", "console") as console:
            console.wait_for("# ")
            environments = machine.run(ENVIRONMENTS).stdout
            console.type("exit\n")
            console.end()
    finally:
        agent.kill()
        agent.wait()
    assert "SSH_CONNECTION=" in environments, "the session was not found"
    assert "SSH_AUTH_SOCK=" not in environments and "DISPLAY=" not in environments


def test_r3_register_and_iam_get_no_terminal(lab: Lab) -> None:
    alice = register(lab, "alice")
    done = alice.ssh("-tt", "register@gpu17-manage", "alice", check=False)
    assert "PTY allocation request failed" in done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_r5_names_that_belong_to_the_host_are_refused(lab: Lab, name: str) -> None:
    machine = lab.servers["gpu17"]
    before = machine.run("md5sum /etc/passwd /etc/shadow /etc/group /etc/subuid").stdout
    answer = Iam(lab, machine).call("register", {"user": name})
    assert answer.code == 1 and answer.refusal == "refused", answer.body
    assert machine.run("md5sum /etc/passwd /etc/shadow /etc/group /etc/subuid").stdout == before


def test_r5_an_existing_host_account_is_never_taken_over(lab: Lab) -> None:
    machine = lab.servers["gpu17"]
    machine.run("useradd -m -s /bin/bash boss")
    try:
        paste(lab, "boss", lab.people["boss"].public_key)
        before = machine.run("getent passwd boss; find /home/boss | sort").stdout
        answer = Iam(lab, machine).call("register", {"user": "boss"})
        assert answer.refusal == "refused", answer.body
        assert machine.run("getent passwd boss; find /home/boss | sort").stdout == before
    finally:
        machine.run("userdel -r boss")


def test_r6_two_registrations_of_one_person_at_once(lab: Lab) -> None:
    charlie = join(lab, "charlie")
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda _: charlie.ssh("register@gpu17-manage", "charlie", check=False), range(2)))
    assert 0 in [done.returncode for done in runs]
    assert all(done.returncode == 0 or "busy" in done.stdout + done.stderr for done in runs), runs
    machine = lab.servers["gpu17"]
    for file in ("/etc/subuid", "/etc/subgid"):
        assert machine.run(f"grep -c ^charlie: {file}").stdout.strip() == "1"
    assert machine.run("grep -c '^charlie ' /etc/lxc/lxc-usernet").stdout.strip() == "1"


def test_r6_several_people_at_once(lab: Lab) -> None:
    names = [name for name in PEOPLE if name != "boss"]
    for name in names:
        if not lab.people[name].config.read_text():
            join(lab, name)
    machine = lab.servers["gpu18"]
    machine.run("printf '# kept\\njimbob veth lxcbr0 3\\n' >> /etc/lxc/lxc-usernet")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: register(lab, name, "gpu18"), names))
    blocks = machine.run("cat /etc/subuid").stdout.split()
    assert len({line.split(":")[1] for line in blocks}) == len(blocks)
    assert {line.split(":")[0] for line in blocks} >= set(names)
    usernet = machine.file("/etc/lxc/lxc-usernet")
    assert "# kept\njimbob veth lxcbr0 3\n" in usernet, "C5: a line of somebody else was changed"
    addresses = {entry["address"] for entry in Iam(lab, machine).status()["containers"].values()}
    assert len(addresses) == len(names)
