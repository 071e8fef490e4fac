"""Cases F1 to F4: a person's forwarded ports on the real server, with real connections."""

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.lab import nvidia
from tests.lab.faults import LABHOST
from tests.lab.lab import GATEWAY, Lab
from tests.lab.machine import Machine
from tests.lab.people import register
from tests.lab.person import Person
from tests.lab.waiting import eventually
from tests.lab.walk import Walk

SERVER = "172.16.2.17"
# Sends its host name to every client. The template has perl, but neither python nor netcat.
LISTENER = (
    "sudo systemd-run --quiet --unit listen{port} perl -MIO::Socket::INET -e"
    " 'my $s = IO::Socket::INET->new(LocalPort => {port}, Listen => 5, ReuseAddr => 1) or die;"
    ' while (my $c = $s->accept) {{ print $c "{word}\\n"; close $c }}\''
)


@pytest.fixture
def machine(lab: Lab) -> Machine:
    return lab.servers["gpu17"]


@pytest.fixture
def alice(lab: Lab) -> Iterator[Person]:
    """Alice, whose container runs. Its forwards are removed after the test."""
    person = register(lab, "alice")
    person.ssh("gpu17-manage")
    yield person
    for pair in forwards(person):
        person.ssh("gpu17-manage", f"port -d {pair['container_port']}")


def forwards(person: Person) -> list[dict[str, int]]:
    return list(json.loads(person.ssh("gpu17-manage", "port --json").stdout)["ports"])


def lead(person: Person, inside: int, outside: str = "") -> int:
    """Forwards a port and returns the server's."""
    person.ssh("gpu17-manage", f"port {inside} {outside}".strip())
    return next(pair["server_port"] for pair in forwards(person) if pair["container_port"] == inside)


def listen(person: Person, port: int, word: str) -> None:
    person.ssh("gpu17", f"sudo systemctl stop listen{port} 2>/dev/null; {LISTENER.format(port=port, word=word)}")
    eventually(lambda: f":{port} " in person.ssh("gpu17", "ss -ltn").stdout, f"a listener on port {port}")


def says(address: str, port: int) -> str:
    """The answer to a connection from outside the server; empty without one."""
    try:
        with socket.create_connection((address, port), timeout=3) as peer:
            peer.settimeout(3)
            return peer.recv(100).decode().strip()
    except OSError:
        return ""


def ask_from(person: Person, address: str, port: int) -> str:
    """The same from inside a person's container."""
    command = f"timeout 5 bash -c 'cat < /dev/tcp/{address}/{port}'"
    return person.ssh("gpu17", command, check=False).stdout.strip()


def rules(machine: Machine) -> str:
    return machine.run("iptables-save").stdout


def test_a_port_reaches_the_container_from_everywhere(lab: Lab, alice: Person, machine: Machine) -> None:
    """From outside, from the server itself, from a neighbour's container, and from the container itself."""
    bob = register(lab, "bob")
    bob.ssh("gpu17-manage")
    listen(alice, 8888, "alice")
    outside = lead(alice, 8888)
    assert says(SERVER, outside) == "alice"
    assert machine.run(f"timeout 5 bash -c 'cat < /dev/tcp/{SERVER}/{outside}'").stdout == "alice\n"
    assert ask_from(bob, SERVER, outside) == "alice"
    assert ask_from(alice, SERVER, outside) == "alice"
    shown = alice.ssh("gpu17-manage", "port").stdout
    assert f"{SERVER}:{outside}" in shown and "ssh gpu17" in shown
    assert f"{outside} to 8888" in alice.ssh("gpu17-manage", "status").stdout
    alice.ssh("gpu17-manage", "port -d 8888")
    assert says(SERVER, outside) == "" and forwards(alice) == []
    assert str(outside) not in rules(machine)


def test_f1_connections_to_the_same_port_of_other_hosts_are_not_redirected(lab: Lab, alice: Person) -> None:
    bob = register(lab, "bob")
    bob.ssh("gpu17-manage")
    listen(alice, 8888, "alice")
    outside = lead(alice, 8888)
    with socket.create_server((GATEWAY, outside)) as elsewhere:
        answering = threading.Thread(target=_answer, args=(elsewhere, 2), daemon=True)
        answering.start()
        assert ask_from(bob, GATEWAY, outside) == "elsewhere"
        assert ask_from(alice, GATEWAY, outside) == "elsewhere"
        answering.join(timeout=5)
    port = Walk(lab).rows("SELECT number FROM accounts_port WHERE username = 'alice'")[0][0]
    with socket.create_server((GATEWAY, port)) as elsewhere:
        answering = threading.Thread(target=_answer, args=(elsewhere, 1), daemon=True)
        answering.start()
        assert ask_from(bob, GATEWAY, port) == "elsewhere", "the SSH port of alice received the connection"
        answering.join(timeout=5)


def _answer(listener: socket.socket, times: int) -> None:
    listener.settimeout(20)
    for _ in range(times):
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"elsewhere\n")


def test_forwards_survive_stop_start_and_restart(alice: Person, machine: Machine) -> None:
    outside = lead(alice, 8888, "30123")
    assert outside == 30123
    alice.ssh("gpu17-manage", "stop")
    assert "30123" not in rules(machine), "a rule without a container"
    assert [pair["server_port"] for pair in forwards(alice)] == [30123]
    done = alice.ssh("gpu17-manage", "port 8889")
    assert "the container is stopped" in done.stdout
    alice.ssh("gpu17-manage")
    alice.ssh("gpu17-manage", "restart")
    listen(alice, 8888, "alice")
    assert says(SERVER, 30123) == "alice"


@pytest.mark.parametrize("how", ["poweroff inside", "crash"])
def test_f2_a_container_that_ends_by_itself_loses_its_rules(
    lab: Lab, alice: Person, machine: Machine, how: str
) -> None:
    outside, address, walk = lead(alice, 8888), address_of(alice), Walk(lab)
    walk.user = "alice"
    assert f"--dport {outside} " in rules(machine)
    if how == "crash":
        machine.run(f"kill -9 {walk.lxc_info('-pH')}")
    else:
        alice.ssh("gpu17", "sudo systemctl poweroff", check=False)
    eventually(lambda: walk.container_state() == "STOPPED", "the end of the container")
    assert machine.run("systemctl is-active lab-iam-reconcile.timer").stdout.strip() == "active"
    machine.run("systemctl start lab-iam-reconcile.service")  # as the timer does each minute
    assert f"{address}:" not in rules(machine)
    status = alice.ssh("gpu17-manage", "status").stdout
    assert "stopped" in status and "ended by itself" in status
    alice.ssh("gpu17-manage")
    assert f"--dport {outside} " in rules(machine)


def address_of(person: Person) -> str:
    """The permanent address of the person's container."""
    return str(json.loads(person.ssh("gpu17-manage", "status --json").stdout)["address"])


def test_f2_a_start_that_fails_leaves_no_rule(lab: Lab, alice: Person, machine: Machine) -> None:
    outside, address, walk = lead(alice, 8888), address_of(alice), Walk(lab)
    walk.user = "alice"
    init = "/home/alice/.local/share/lxc/alice/rootfs/usr/lib/systemd/systemd"
    machine.run("systemctl stop lab-iam-reconcile.timer")
    try:
        machine.run(f"mv {init} {init}.away; kill -9 {walk.lxc_info('-pH')}")
        eventually(lambda: walk.container_state() == "STOPPED", "the end of the container")
        # As a start of another container leaves it that writes the rules while this one is failing.
        assert f"--dport {outside} " in rules(machine)
        assert alice.ssh("gpu17-manage", check=False).returncode == 1
        assert f"{address}:" not in rules(machine)
    finally:
        machine.run(f"mv {init}.away {init}; systemctl start lab-iam-reconcile.timer")
    alice.ssh("gpu17-manage")
    assert f"--dport {outside} " in rules(machine)


def test_f2_flushed_or_foreign_rules_are_corrected(alice: Person, machine: Machine) -> None:
    outside = lead(alice, 8888)
    machine.run("iptables -t nat -A LAB-IAM-PRE -p tcp --dport 31999 -j DNAT --to-destination 10.0.3.200:22")
    machine.run("iptables -t nat -F LAB-IAM-OUT; iptables -t nat -D PREROUTING -j LAB-IAM-PRE; iptables -F LAB-IAM-FWD")
    machine.run("iptables -t nat -A PREROUTING -p tcp --dport 9 -j ACCEPT -m comment --comment others")
    machine.run("systemctl start lab-iam-reconcile.service")
    found = rules(machine)
    assert "31999" not in found and f"-A LAB-IAM-OUT -d {SERVER}/32 -p tcp -m tcp --dport {outside} " in found
    assert "-A PREROUTING -j LAB-IAM-PRE" in found and "--comment others" in found
    machine.run("iptables -t nat -D PREROUTING -p tcp --dport 9 -j ACCEPT -m comment --comment others")


def test_f2_after_a_reboot_a_started_container_has_its_forward(lab: Lab, alice: Person, machine: Machine) -> None:
    outside, address = lead(alice, 8888), address_of(alice)
    machine.reboot()
    nvidia.make_devices(machine)
    eventually(lambda: "LAB-IAM-PRE" in rules(machine), "the chains of Lab IAM after the boot")
    for line in rules(machine).splitlines():
        assert "DNAT --to" not in line or f"{address}:" in line, "a rule for the address of another person"
    alice.ssh("gpu17-manage")
    assert address_of(alice) == address
    listen(alice, 8888, "alice")
    assert says(SERVER, outside) == "alice"


def test_f3_exceeded_quotas_used_ports_and_other_ranges_are_refused_with_the_reason(
    alice: Person, machine: Machine
) -> None:
    machine.run("systemd-run --quiet --unit occupied python3 -m http.server 30000 --bind 127.0.0.1")
    try:
        eventually(lambda: ":30000 " in machine.run("ss -ltn").stdout, "a program on port 30000")
        assert "in use" in refused(alice, "port 80 30000")
        assert lead(alice, 80) != 30000
        assert "from 30000 to 32767" in refused(alice, "port 81 22")
        assert "not 22031" in refused(alice, "port 81 22031")
        for inside in (443, 8080, 8443, 3306):  # all of them have names in /etc/services
            lead(alice, inside)
        assert "5 of 5" in refused(alice, "port 8081")
        assert alice.ssh("gpu17-manage", "port 80").returncode == 0, (
            "a port that is already forwarded does not count twice"
        )
    finally:
        machine.run("systemctl stop occupied")


def test_n9_a_port_on_which_the_server_listens_later_is_the_servers_again(alice: Person, machine: Machine) -> None:
    outside = lead(alice, 8888, "30555")
    machine.run(f"systemd-run --quiet --unit later python3 -m http.server {outside}")
    try:
        eventually(lambda: f":{outside} " in machine.run("ss -ltn").stdout, "a program of the server")
        machine.run(f"{LABHOST} reconcile")
        assert f"--dport {outside} " not in rules(machine)
        assert f"listens on their port {outside}" in machine.run(f"{LABHOST} doctor", check=False).stdout
        answer = machine.run(f"curl -s -o /dev/null -w '%{{http_code}}' http://{SERVER}:{outside}/").stdout
        assert answer == "200", "the server's own program is not reached"
    finally:
        machine.run("systemctl stop later")
    machine.run(f"{LABHOST} reconcile")
    assert f"--dport {outside} " in rules(machine)


def refused(person: Person, words: str) -> str:
    done = person.ssh("gpu17-manage", words, check=False)
    assert done.returncode == 3, done
    return done.stdout


def test_f4_another_persons_forward_is_not_seen_changed_or_removed(lab: Lab, alice: Person) -> None:
    bob = register(lab, "bob")
    outside = lead(alice, 8888, "30777")
    assert forwards(bob) == [] and "30777" not in bob.ssh("gpu17-manage", "port").stdout
    assert "you have no port" in refused(bob, "port -d 8888")
    assert "you have no port" in refused(bob, f"port -d {outside}")
    assert "in use" in refused(bob, f"port 80 {outside}")
    assert [pair["server_port"] for pair in forwards(alice)] == [outside]


# A DHCP client of a few lines (RFC 2131), because the template has none: DISCOVER, REQUEST, and the assigned address.
DHCP_CLIENT = """
import socket, struct, sys
mac = open("/sys/class/net/eth0/address").read().strip() if len(sys.argv) < 2 else sys.argv[1]
hardware = bytes.fromhex(mac.replace(":", ""))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    s.bind(("", 68))
    s.settimeout(5)
    head = struct.pack("!BBBBIHHIIII16s192x4s", 1, 1, 6, 0, 17, 0, 0x8000, 0, 0, 0, 0, hardware, b"\\x63\\x82\\x53\\x63")
    s.sendto(head + bytes([53, 1, 1, 255]), ("255.255.255.255", 67))
    offer = s.recv(2000)[16:20]
    s.sendto(head + bytes([53, 1, 3, 50, 4]) + offer + bytes([54, 4]) + socket.inet_aton("10.0.3.1") + b"\\xff", ("255.255.255.255", 67))
    print(socket.inet_ntoa(s.recv(2000)[16:20]))
"""


def test_a_container_that_uses_dhcp_gets_its_own_address(lab: Lab, alice: Person, machine: Machine) -> None:
    """Request an address from the real dnsmasq of lxc-net, in the container's network with its hardware address."""
    status, walk = json.loads(alice.ssh("gpu17-manage", "status --json").stdout), Walk(lab)
    walk.user = "alice"
    mac = alice.ssh("gpu17", "cat /sys/class/net/eth0/address").stdout.strip()
    client = f"nsenter -t {walk.lxc_info('-pH')} -n python3 - {mac}"
    assert machine.run(client, stdin=DHCP_CLIENT).stdout.strip() == status["address"]
    assert f"{mac} {status['address']} " in machine.file("/var/lib/misc/dnsmasq.lxcbr0.leases")
    alice.ssh("gpu17-manage", "restart")
    assert address_of(alice) == status["address"], "their own lease changed their address"
