"""Cases N1 to N9: root in a container attacks the server and a neighbour over the network, also after a reboot."""

import json
import re
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e import enemy_packets
from tests.e2e.test_ports import SERVER, ask_from, forwards, lead, listen, says
from tests.lab.faults import LABHOST
from tests.lab.lab import GATEWAY, Lab
from tests.lab.machine import Machine
from tests.lab.namespace import BRIDGE
from tests.lab.people import register
from tests.lab.waiting import eventually
from tests.lab.walk import Walk

PROGRAM = Path(enemy_packets.__file__).read_text()
GATEWAY_INSIDE, FOREIGN = "10.0.3.1", "203.0.113.9"
MANY = 20_000
COUNT = "cat /proc/sys/net/netfilter/nf_conntrack_count"


class Container:
    """A person's running container on gpu17, and its network as root in it would use it."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.machine, self.name = lab.servers["gpu17"], name
        self.person = register(lab, name)
        self.person.ssh("gpu17-manage")
        self.walk = Walk(lab)
        self.walk.user = name
        self.address = str(json.loads(self.person.ssh("gpu17-manage", "status --json").stdout)["address"])

    @property
    def pid(self) -> str:
        return self.walk.lxc_info("-pH")

    def network(self, command: str, stdin: str = "") -> str:
        """Run a program of the server as root in the container's network."""
        return self.machine.run(f"nsenter -t {self.pid} -n {command}", stdin=stdin).stdout.strip()

    def send(self, *words: str) -> str:
        return self.network(f"python3 - {shlex.join(words)}", stdin=PROGRAM)

    @property
    def mac(self) -> str:
        return self.network("ip -o link show eth0").partition("link/ether ")[2].split()[0]

    @property
    def gateway_mac(self) -> str:
        """The server's address on this container's link, asked for as any program would."""
        self.network(f"timeout 2 bash -c 'echo > /dev/udp/{GATEWAY_INSIDE}/9'")
        look = f"ip neighbour show {GATEWAY_INSIDE}"
        return eventually(lambda: re.findall(r"lladdr (\S+)", self.network(look)), "the gateway's MAC")[0]

    def reboot(self) -> None:
        """From inside, where no code of ours runs."""
        before = self.pid
        self.person.ssh("gpu17", "sudo systemctl reboot", check=False)
        eventually(lambda: self.pid not in (before, ""), f"{self.name}'s container after its reboot", timeout=60)
        eventually(lambda: self.person.ssh("gpu17", "true", check=False).returncode == 0, "its sshd", timeout=60)


@pytest.fixture
def machine(lab: Lab) -> Machine:
    return lab.servers["gpu17"]


@pytest.fixture(scope="module")
def bob(lab: Lab) -> Container:
    """The neighbour."""
    return Container(lab, "bob")


@pytest.fixture(scope="module", params=["started", "rebooted from inside"])
def alice(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Container]:
    """The enemy; after a reboot nothing of ours has run on the server since."""
    container = Container(lab, "alice")
    timer = "lab-iam-reconcile.timer"
    lab.servers["gpu17"].run(f"systemctl stop {timer}")
    if request.param != "started":
        container.reboot()
    yield container
    lab.servers["gpu17"].run(f"systemctl start {timer}")


def test_n1_a_router_advertisement_reaches_neither_the_server_nor_a_neighbour(
    machine: Machine, alice: Container, bob: Container
) -> None:
    look = "ip -6 route show default; ip -6 address show scope global"
    before, neighbour = machine.run(look).stdout, bob.network(f"bash -c {shlex.quote(look)}")
    alice.send("advertise")
    time.sleep(1)  # until something would have been configured
    assert machine.run(look).stdout == before
    assert bob.network(f"bash -c {shlex.quote(look)}") == neighbour
    assert "2001:db8" not in before + neighbour


def test_n2_a_neighbours_port_cannot_be_taken_with_arp_or_its_mac(
    lab: Lab, machine: Machine, alice: Container, bob: Container
) -> None:
    listen(bob.person, 8888, "bob")
    outside = lead(bob.person, 8888)
    listen(alice.person, 8888, "alice")
    hardware = bob.mac
    alice.network(f"ip address add {bob.address}/32 dev eth0")
    try:
        alice.send("claim", bob.address, hardware, GATEWAY_INSIDE)
        answers = [says(SERVER, outside) for _ in range(10)]
        alice.send("claim", bob.address, hardware, GATEWAY_INSIDE)
        answers += [says(SERVER, outside) for _ in range(10)]
    finally:
        alice.network(f"ip address delete {bob.address}/32 dev eth0")
        bob.person.ssh("gpu17-manage", "port -d 8888")
    assert answers == ["bob"] * 20
    neighbours = machine.run(f"ip neighbour show {bob.address}").stdout
    assert hardware in neighbours and alice.mac not in neighbours


def test_n2_forged_senders_do_not_fill_the_servers_neighbour_table(machine: Machine, alice: Container) -> None:
    count = "ip neighbour show | wc -l; bridge fdb show dynamic | wc -l"
    before = list(map(int, machine.run(count).stdout.split()))
    alice.send("ask_as_many", alice.gateway_mac, GATEWAY_INSIDE, "10.0.3")
    after = list(map(int, machine.run(count).stdout.split()))
    assert after[0] <= before[0] + 5 and after[1] <= before[1] + 5, (before, after)


@contextmanager
def watching_the_lab() -> Iterator[list[str]]:
    """The sources of crafted packets that arrive outside the server."""
    seen: list[str] = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as peer:
        peer.bind((BRIDGE, 0))
        yield seen
        peer.settimeout(1)
        try:
            while True:
                packet = peer.recv(2000)
                if enemy_packets.MAGIC in packet and packet[23] == socket.IPPROTO_UDP:
                    claimed = packet.partition(enemy_packets.MAGIC)[2].decode()
                    seen.append(f"{claimed} from {socket.inet_ntoa(packet[26:30])}")
        except TimeoutError:
            return


def test_n2_n8_only_its_own_source_address_leaves_a_container(alice: Container, bob: Container) -> None:
    with watching_the_lab() as seen:
        alice.send("pretend", alice.gateway_mac, GATEWAY, alice.address, bob.address, FOREIGN, SERVER, GATEWAY_INSIDE)
    assert set(seen) == {f"{alice.address} from {SERVER}"}, "its own packets leave with the server's address"


def test_n8_a_dhcp_server_in_a_container_is_not_heard_by_neighbours(
    lab: Lab, machine: Machine, alice: Container, bob: Container
) -> None:
    pid = alice.pid
    rogue = f"systemd-run --quiet --unit rogue{pid} nsenter -t {pid} -n python3 /run/enemy.py offer"
    machine.run(f"cat > /run/enemy.py; {rogue}", stdin=PROGRAM)
    try:
        eventually(lambda: "ready" in machine.run(f"journalctl -o cat -u rogue{pid}").stdout, "the enemy")
        offers = " ".join(bob.send("discover", "3") for _ in range(2))
    finally:
        machine.run(f"systemctl stop rogue{pid}")
    assert set(offers.split()) == {bob.address}


def test_an_enemys_container_and_its_neighbour_go_on_working(
    machine: Machine, alice: Container, bob: Container
) -> None:
    """Login, outwards, forwards, by the server's address to itself and to a neighbour, and the neighbour directly."""
    assert alice.person.ssh("gpu17", "id -un").stdout == "alice\n"
    listen(alice.person, 8889, "alice")
    outside = lead(alice.person, 8889)
    eventually(lambda: says(SERVER, outside) == "alice", "an answer of alice's port")
    assert ask_from(bob.person, SERVER, outside) == "alice"
    assert ask_from(bob.person, alice.address, 8889) == "alice"
    with socket.create_server((GATEWAY, 4567)) as elsewhere:
        elsewhere.settimeout(10)
        alice.person.ssh("gpu17", f"timeout 5 bash -c 'echo > /dev/tcp/{GATEWAY}/4567'")
        assert elsewhere.accept()[1][0] == SERVER
    # Where bridged packets pass iptables, the next minute's run allows what a new veth must for this.
    machine.run(f"{LABHOST} reconcile")
    assert ask_from(alice.person, SERVER, outside) == "alice"
    for pair in forwards(alice.person):
        alice.person.ssh("gpu17-manage", f"port -d {pair['container_port']}")


def test_a_bridge_is_made_at_the_start_and_removed_with_the_person(lab: Lab, machine: Machine) -> None:
    charlie = Container(lab, "charlie")
    name = f"lxc-u{machine.run('id -u charlie').stdout.strip()}"
    links = "ls /sys/class/net"
    assert name in machine.run(links).stdout.split()
    assert f"charlie veth {name} 1\n" in machine.file("/etc/lxc/lxc-usernet")
    charlie.person.ssh("gpu17-manage", "stop")
    machine.run(f"ip link delete {name}; {LABHOST} reconcile")
    charlie.person.ssh("gpu17-manage")
    assert charlie.person.ssh("gpu17", "id -un").stdout == "charlie\n"
    machine.run(f"{LABHOST} remove charlie --purge --yes")
    assert name not in machine.run(links).stdout.split()
    assert name not in machine.file("/etc/lxc/lxc-usernet")


def test_n4_crafted_connections_are_bounded_and_end_with_the_container(
    lab: Lab, machine: Machine, alice: Container, bob: Container
) -> None:
    second = "10.0.3.200"
    alice.network(f"ip address add {second}/32 dev eth0")
    alice.network("iptables -A OUTPUT -p tcp --tcp-flags RST RST -j DROP")
    bob.network("iptables -A INPUT -p tcp --dport 9 -j DROP")
    before = int(machine.run(COUNT).stdout)
    alice.send("flood", alice.gateway_mac, alice.address, second, str(MANY // 2), "answered")
    alice.send("flood", alice.gateway_mac, alice.address, bob.address, str(MANY))
    after = int(machine.run(COUNT).stdout)
    assert 1000 < after - before < 6000, "of 30,000 connections"
    assert bob.person.ssh("gpu17", "id -un").stdout == "bob\n"
    assert lab.people["alice"].ssh("gpu17-manage", "stop").returncode == 0
    assert int(machine.run(COUNT).stdout) < before + 500, "the connections outlived the container"
    alice.person.ssh("gpu17-manage")
