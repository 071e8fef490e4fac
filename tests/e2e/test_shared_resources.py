"""Cases N3, N5, N6: a container takes no login, page, terminal or process that the server or others need."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.people import Iam, register
from tests.lab.person import Person
from tests.lab.waiting import ends_within

CONNECTIONS = 250
LOGINS = 12
# Opens connections to port 22 from each of its addresses in turn, prints how many, and keeps them.
HOLD = """
use Socket; use Fcntl; $| = 1; my ($to, $n, @from) = @ARGV; my @open;
for (1..$n) {
  socket(my $s, PF_INET, SOCK_STREAM, 0) or last; fcntl($s, F_SETFL, O_NONBLOCK);
  bind($s, sockaddr_in(0, inet_aton($from[$_ % @from]))) if @from;
  connect($s, sockaddr_in(22, inet_aton($to))); push @open, $s; select(undef, undef, undef, 0.005);
}
print scalar(@open), "\\n"; sleep 50;
"""
TERMINALS = 'my @t; while (@t < 2000 and open my $f, "+<", "/dev/ptmx") { push @t, $f } print scalar(@t), "\\n"'
# Children with many user ids, since a limit for each of them would be none.
FORKS = """
$| = 1; my $n = 0; for (1..1500) { my $p = fork; last unless defined $p; if (!$p) { $) = $( = $> = $< = 2000 + $_; sleep 20; exit }
$n++ } print "$n\\n"; kill 9, -getpgrp 0;
"""


@pytest.fixture
def gpu17(lab: Lab) -> Machine:
    return lab.servers["gpu17"]


@pytest.fixture
def alice(lab: Lab) -> Person:
    return started(lab, "alice")


@pytest.fixture
def bob(lab: Lab) -> Person:
    return started(lab, "bob")


def started(lab: Lab, name: str) -> Person:
    person = register(lab, name)
    person.ssh("gpu17-manage")
    return person


@contextmanager
def connections(person: Person, address: str, *sources: str) -> Iterator[None]:
    """Unauthenticated connections from the person's container to port 22 of `address`, while the block runs."""
    command = f"sudo perl -e '{HOLD}' {address} {CONNECTIONS} {' '.join(sources)}"
    holding = subprocess.Popen(
        person.argv("gpu17", command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holding.stdout is not None and int(holding.stdout.readline()) == CONNECTIONS
        yield
        assert holding.poll() is None, "the connections were closed too early"
    finally:
        person.ssh("gpu17", "sudo pkill perl", check=False)
        holding.kill()
        holding.communicate()


@pytest.mark.parametrize("sources", [1, 31])
def test_n3_connections_of_a_container_shut_nobody_out_of_its_server(
    lab: Lab, gpu17: Machine, alice: Person, bob: Person, sources: int
) -> None:
    own = [f"10.0.3.{number}" for number in range(200, 200 + sources)] if sources > 1 else []
    if own:
        alice.ssh("gpu17", f"for a in {' '.join(own)}; do sudo ip addr add $a/24 dev eth0; done")
    try:
        with connections(alice, gpu17.address, *own), ends_within(60):
            refused = [bob.ssh("gpu17-manage", "status", check=False).returncode for _ in range(LOGINS)]
            assert refused == [0] * LOGINS
            assert all(Iam(lab, gpu17, timeout=20).status()["ok"] for _ in range(LOGINS)), "the portal was shut out"
    finally:
        alice.ssh("gpu17", f"for a in {' '.join(own)}; do sudo ip addr del $a/24 dev eth0; done", check=False)


def test_n3_connections_of_a_container_shut_nobody_out_of_another_server(lab: Lab, alice: Person, bob: Person) -> None:
    other = lab.servers["gpu18"]
    with connections(alice, other.address), ends_within(60):
        assert all(Iam(lab, other, timeout=20).status()["ok"] for _ in range(LOGINS)), "the portal was shut out"
        greeting = f"timeout 10 bash -c 'head -c 4 </dev/tcp/{other.address}/22'"
        assert bob.ssh("gpu17", greeting).stdout == "SSH-", "a neighbour cannot connect from the same server"


def test_n3_sshd_lets_the_portal_wait_for_nothing(gpu17: Machine) -> None:
    settings = gpu17.run("sshd -T").stdout.splitlines()
    assert "persourcemaxstartups 30" in settings and "maxstartups 200:30:400" in settings
    assert gpu17.run("sed -n 's/^ssh_address = //p' /etc/lab-iam/host.conf").stdout.strip() == "172.16.2.1"


def test_n5_a_container_cannot_read_the_plain_text_pages_as_its_server(lab: Lab, gpu17: Machine, alice: Person) -> None:
    """Its requests leave with the server's address."""
    for page in ("/user/bob/port", "/users", "/user/bob/.ssh/authorized_keys"):
        ask = f"exec 3<>/dev/tcp/{lab.portal.address}/80; printf 'GET {page} HTTP/1.0\\r\\nHost: iam.mylab.com\\r\\n\\r\\n' >&3"
        answer = alice.ssh("gpu17", f'bash -c "{ask}; head -n 1 <&3"').stdout
        assert answer.split()[1] == "403", answer
    log = lab.portal.access_log.read_text().splitlines()
    assert [line for line in log if line.startswith(gpu17.address) and '"GET /users ' in line and '" 403 ' in line]


def test_n6_a_container_has_a_limited_number_of_terminals(alice: Person, bob: Person) -> None:
    assert 200 < int(alice.ssh("gpu17", f"sudo perl -e '{TERMINALS}'").stdout) <= 256
    assert bob.ssh("gpu17", "true").returncode == 0


@pytest.fixture
def few_processes(lab: Lab, alice: Person) -> Iterator[int]:
    limits = "from servers.models import Limits\nfrom servers.services.containers import limits\n"
    lab.portal.manage("shell", "-v", "0", "-c", f"{limits}limits.save(actor='boss', limits=Limits(processes=300))")
    alice.ssh("gpu17-manage", "restart")
    yield 300
    lab.portal.manage("shell", "-v", "0", "-c", f"{limits}Limits.objects.all().delete()")
    alice.ssh("gpu17-manage", "restart")


def test_n6_processes_are_limited_for_all_user_ids_of_a_container_together(
    gpu17: Machine, alice: Person, bob: Person, few_processes: int
) -> None:
    made = int(alice.ssh("gpu17", f"sudo setsid -w perl -e '{FORKS}'", check=False).stdout.split()[0])
    assert 200 < made < few_processes
    status = json.loads(alice.ssh("gpu17-manage", "status --json").stdout)
    assert "processes" not in status["limits_not_enforced"]
    assert bob.ssh("gpu17", "echo fine").stdout == "fine\n"


def test_n6_a_container_full_of_processes_can_be_stopped(alice: Person, few_processes: int) -> None:
    bomb = subprocess.Popen(
        alice.argv("gpu17", "f() { while :; do sleep 30 & done; }; f 2>/dev/null"), stdin=subprocess.DEVNULL
    )
    try:
        with ends_within(60):
            assert "container stopped" in alice.ssh("gpu17-manage", "stop").stdout
    finally:
        bomb.kill()
        bomb.wait()
        alice.ssh("gpu17-manage")


def test_n6_without_a_limit_of_the_portal_there_is_one_of_the_server(gpu17: Machine, alice: Person) -> None:
    limits = alice.ssh("gpu17", "cat /proc/1/limits").stdout
    row: Any = next(line for line in limits.splitlines() if line.startswith("Max processes"))
    assert int(row.split()[2]) <= 8192
    assert " processes" in alice.ssh("gpu17-manage", "status").stdout


def test_n6_doctor_says_what_the_kernel_cannot_limit(gpu17: Machine, alice: Person) -> None:
    manager = "/sys/fs/cgroup/user.slice/user-$(id -u alice).slice/user@$(id -u alice).service"
    available = gpu17.run(f"cat {manager}/cgroup.controllers").stdout.split()
    notes = json.loads(gpu17.run("/usr/local/sbin/labhost doctor --json", check=False).stdout)["notes"]
    found = [note for note in notes if note.startswith("containers are not limited here")]
    assert len(found) == bool({"memory", "cpu"} - set(available))
    assert all(name in found[0] for name in {"memory", "cpu"} - set(available))
