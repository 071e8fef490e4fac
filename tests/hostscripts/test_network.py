"""Addresses of containers, and the rules of the ports (cases F1 and F2 as text; the booted lab shows them at work)."""

from pathlib import Path

import pytest
from labhost import lxc
from labhost.container import lxc_config
from labhost.errors import LabhostError
from labhost.host.user_state import User
from labhost.network import addresses, dhcp, firewall
from labhost.network.firewall import Forward

from tests.hostscripts import hosts


def rules(*forwards: Forward) -> list[str]:
    return firewall.render_rules("172.16.2.17", "lxcbr0", "10.0.3.0/24", forwards).splitlines()


def test_no_container_no_rule_but_our_chains_are_emptied() -> None:
    chains = [line for line in rules() if line.startswith(":")]
    assert chains == [
        ":LAB-IAM-PRE - [0:0]",
        ":LAB-IAM-OUT - [0:0]",
        ":LAB-IAM-POST - [0:0]",
        ":LAB-IAM-FWD - [0:0]",
    ]
    assert not [line for line in rules() if line.startswith("-A")]


def test_f1_only_the_servers_own_address_is_led_away() -> None:
    led = [line for line in rules(Forward(22031, "10.0.3.160")) if "DNAT --to" in line]
    assert len(led) == 2  # from outside, and from the server itself
    for line in led:
        assert "-d 172.16.2.17/32 -p tcp -m tcp --dport 22031 " in line
        assert line.endswith("--to-destination 10.0.3.160:22")


def test_no_chain_of_others_is_touched() -> None:
    for line in rules(Forward(22031, "10.0.3.160"), Forward(22032, "10.0.3.161")):
        assert line in ("*nat", "*filter", "COMMIT") or line.split()[0 if line[0] == ":" else 1].lstrip(":").startswith(
            "LAB-IAM-"
        )


def test_f2_an_address_is_never_shared(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    people = [User(f"u{number}") for number in range(30)]
    for person in people:
        person.address = addresses.address_for(host, person, [other for other in people if other is not person])
    assert len({person.address for person in people}) == 30
    assert len({addresses.mac_address(person.address) for person in people}) == 30
    assert people[0].address == "10.0.3.10"


def test_an_address_is_kept_and_changed_only_if_it_left_the_network(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    assert addresses.address_for(host, User("a", address="10.0.3.99"), []) == "10.0.3.99"
    assert addresses.address_for(host, User("a", address="10.9.9.9"), []) == "10.0.3.10"


def test_a_lease_of_lxc_nets_dhcp_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "dnsmasq.lxcbr0.leases").write_text("1795479832 00:16:3e:00:00:01 10.0.3.10 other *\n")
    assert addresses.address_for(hosts.make(tmp_path), User("a"), []) == "10.0.3.11"


def test_a_full_network_is_said(tmp_path: Path) -> None:
    host = hosts.make(tmp_path, container__network="10.0.3.0/28")
    others = [User(f"u{number}", address=f"10.0.3.{number}") for number in range(16)]
    with pytest.raises(LabhostError, match="no address is free"):
        addresses.address_for(host, User("a"), others)


def test_the_lxc_configuration_says_all_that_the_seed_asks_for(tmp_path: Path) -> None:
    host = hosts.make(tmp_path, container__mounts="/data:/data:ro", container__apparmor="unconfined")
    user = User("lqchen", subuid=1_000_000_000, address="10.0.3.160")
    lines = lxc_config.render(host, user, [lxc.mount_entry("/dev/nvidia0", "/dev/nvidia0", file=True)]).splitlines()
    for line in (
        "lxc.idmap = u 0 1000000000 65536",
        "lxc.idmap = g 0 1000000000 65536",
        f"lxc.rootfs.path = dir:{tmp_path}/home/lqchen/.local/share/lxc/lqchen/rootfs",
        "lxc.uts.name = gpu17",
        "lxc.net.0.ipv4.address = 10.0.3.160/24",
        "lxc.net.0.ipv4.gateway = 10.0.3.1",
        "lxc.apparmor.profile = unconfined",
        "lxc.mount.entry = /data data none bind,optional,create=dir,ro 0 0",
        "lxc.mount.entry = /dev/nvidia0 dev/nvidia0 none bind,optional,create=file 0 0",
    ):
        assert line in lines


def test_lxc_info_is_read() -> None:
    info = lxc.parse_info(
        "Name:           lqchen\nState:          RUNNING\nIP:             10.0.3.160\nIP:    fe80::1\n"
    )
    assert info.running and info.addresses == ("10.0.3.160", "fe80::1")
    assert lxc.parse_info("").state == "UNKNOWN"
    assert (
        lxc.parse_info("State: RUNNING\nLink:           veth1001_Ab3\n TX bytes:      1 KiB\n").link == "veth1001_Ab3"
    )


@pytest.mark.parametrize(("filtering", "link", "mode"), [("1", "veth1", "1"), ("0", "veth1", "0"), ("1", "../x", "0")])
def test_only_where_bridged_packets_pass_iptables_a_port_may_lead_back(
    tmp_path: Path, filtering: str, link: str, mode: str
) -> None:
    host = hosts.make(tmp_path)
    host.paths.bridge_filter.write_text(f"{filtering}\n")
    for port in ("veth1", "veth2", "../x"):
        folder = host.paths.interfaces / "lxcbr0/brif" / port
        folder.mkdir(parents=True)
        (folder / "hairpin_mode").write_text("0\n")
    firewall.allow_hairpin(host, link)
    assert (host.paths.interfaces / "lxcbr0/brif" / link / "hairpin_mode").read_text().strip() == mode
    assert (host.paths.interfaces / "lxcbr0/brif/veth2/hairpin_mode").read_text() == "0\n"


def test_ones_own_lease_does_not_cost_the_address(tmp_path: Path) -> None:
    mac = addresses.mac_address("10.0.3.99")
    lines = f"1795479832 {mac} 10.0.3.99 gpu17 *\n1795479832 00:16:3e:aa:bb:cc 10.0.3.98 other *\n"
    (tmp_path / "dnsmasq.lxcbr0.leases").write_text(lines)
    host = hosts.make(tmp_path)
    assert addresses.address_for(host, User("a", address="10.0.3.99"), []) == "10.0.3.99"
    assert addresses.address_for(host, User("a", address="10.0.3.98"), []) == "10.0.3.10"


def test_who_asks_by_dhcp_is_given_her_own_address_and_who_left_none(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    alice = User("alice", address="10.0.3.160")
    dhcp.reserve(host, alice)  # a server that was set up before reservations came
    host.paths.dhcp_hosts.mkdir()
    dhcp.reserve(host, alice)
    dhcp.reserve(host, User("bob", address="10.0.3.161"))
    assert (host.paths.dhcp_hosts / "alice").read_text() == "00:16:3e:00:03:a0,10.0.3.160\n"
    dhcp.keep_only(host, ["alice"])
    assert [path.name for path in host.paths.dhcp_hosts.iterdir()] == ["alice"]
