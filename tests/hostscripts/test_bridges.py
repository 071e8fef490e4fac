"""A bridge for each container. tests/e2e/test_network.py tests what it keeps out."""

from pathlib import Path

import pytest
from labhost.errors import LabhostError
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.network import bridges

from tests.hostscripts import hosts

ALICE = User("alice", uid=1001, address="10.0.3.10")
OPTIONS = {"ageing_time": "0", "forward_delay": "0", "multicast_snooping": "0"}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A server whose kernel shows Alice's bridge as it should be, except for its address."""
    host = hosts.make(tmp_path)
    folder = host.paths.interfaces / "lxc-u1001"
    (folder / "bridge").mkdir(parents=True)
    (folder / "brif/veth1001_x").mkdir(parents=True)
    (folder / "brif/veth1001_x/hairpin_mode").write_text("0\n")
    for name, value in OPTIONS.items():
        (folder / "bridge" / name).write_text(f"{value}\n")
    (folder / "address").write_text("02:16:3e:00:03:01\n")
    (folder / "flags").write_text("0x1003\n")
    for path in ("ipv4/conf", "ipv4/neigh", "ipv6/conf"):
        (host.paths.sysctls / path / "lxc-u1001").mkdir(parents=True)
    for path, value in (("ipv4/conf/{}/rp_filter", "1"), ("ipv4/conf/{}/proxy_arp", "1"), ("ipv4/neigh/{}/proxy_delay", "0"),
                        ("ipv6/conf/{}/disable_ipv6", "1"), ("ipv6/conf/{}/accept_ra", "0")):  # fmt: skip
        (host.paths.sysctls / path.format("lxc-u1001")).write_text(f"{value}\n")
    host.paths.network.mkdir()
    (host.paths.network / "route").write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "lxc-u1001\t0A03000A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
    )
    (host.paths.network / "arp").write_text(
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "10.0.3.10        0x1         0x6         00:16:3e:00:03:0a     *        lxc-u1001\n"
    )
    return host


def fault(host: Host) -> str:
    return "".join(bridges.faults(host, [bridges.bridge_of(host, ALICE)]))


@pytest.fixture(autouse=True)
def addressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridges, "_address", lambda _: "10.0.3.1")


def test_a_bridge_as_it_should_be_has_no_fault(host: Host) -> None:
    assert fault(host) == ""


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("sysctl/ipv6/conf/lxc-u1001/disable_ipv6", "0", "disable_ipv6"),
        ("sysctl/ipv4/conf/lxc-u1001/rp_filter", "2", "rp_filter"),
        ("net/lxc-u1001/bridge/ageing_time", "30000", "ageing_time"),
        ("net/lxc-u1001/address", "fe:00:00:00:00:01", "link"),
        ("net/lxc-u1001/flags", "0x1002", "link"),
        ("proc/route", "Iface", "route"),
        ("proc/route", "Iface\nlxc-u1001 0B03000A 0 5 0 0 0 FFFFFFFF 0 0 0", "route"),
        ("proc/arp", "IP\n10.0.3.10 0x1 0x2 00:16:3e:00:03:0a * lxc-u1001", "neighbour entry"),
        ("proc/arp", "IP\n10.0.3.10 0x1 0x6 00:16:3e:00:03:66 * lxc-u1001", "neighbour entry"),
    ],
)
def test_n1_n2_each_change_of_a_bridge_is_seen(host: Host, tmp_path: Path, path: str, text: str, found: str) -> None:
    (tmp_path / path).write_text(f"{text}\n")
    assert fault(host) == f"the bridge lxc-u1001 is wrong: {found}"


def test_a_missing_bridge_and_one_of_nobody_are_seen(host: Host) -> None:
    bob = bridges.bridge_of(host, User("bob", uid=1002, address="10.0.3.11"))
    assert bridges.faults(host, [bob]) == ["the bridge lxc-u1002 is missing"]
    for name in ("lxc-u7/bridge", "lxc-ux/bridge", "lxcbr0/bridge", "lxc-u8"):  # lxc-u8 is no bridge
        (host.paths.interfaces / name).mkdir(parents=True)
    assert bridges.extra(host, [bob]) == ["lxc-u7"]  # Alice's has a container


def test_an_interface_of_somebody_else_with_such_a_name_is_refused(host: Host) -> None:
    (host.paths.interfaces / "lxc-u1002").mkdir()
    with pytest.raises(LabhostError, match="lxc-u1002 is not a bridge"):
        bridges.ensure(host, [bridges.bridge_of(host, User("bob", uid=1002, address="10.0.3.11"))])


def test_all_that_pins_a_container_stands_on_its_bridge(host: Host) -> None:
    bridge = bridges.bridge_of(host, ALICE)
    assert bridges.render_new([bridge]) == "link add dev lxc-u1001 address 02:16:3e:00:03:01 type bridge\n"
    assert bridges.render_addresses([bridge]).splitlines() == [
        "address flush dev lxc-u1001",
        "route flush dev lxc-u1001",
        "address add 10.0.3.1/32 dev lxc-u1001",
        "link set dev lxc-u1001 address 02:16:3e:00:03:01 up",
        "route replace 10.0.3.10/32 dev lxc-u1001",
        "neighbour replace 10.0.3.10 lladdr 00:16:3e:00:03:0a dev lxc-u1001 nud permanent",
    ]


def test_the_longest_name_fits_an_interface() -> None:
    assert len(bridges.name_of(User("x", uid=2**32 - 2))) <= 15


@pytest.mark.parametrize(("filtering", "mode"), [("1", "1"), ("0", "0")])
def test_hairpin_mode_is_set_only_where_bridged_packets_pass_iptables(host: Host, filtering: str, mode: str) -> None:
    (host.paths.sysctls / "bridge").mkdir()
    (host.paths.sysctls / "bridge/bridge-nf-call-iptables").write_text(f"{filtering}\n")
    bridges.allow_hairpin(host, "lxc-u1001")
    found = host.paths.interfaces / "lxc-u1001/brif/veth1001_x/hairpin_mode"
    assert found.read_text().strip() == mode
