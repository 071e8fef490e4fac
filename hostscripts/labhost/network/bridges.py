"""A bridge of its own for each container, so that it shares no link with its neighbours.

All that pins a container to its address stands on the bridge, which root makes and names. The container's veth may
have any name: it has another one after each start and after each reboot from inside, where no code of ours runs.
"""

import fcntl
import ipaddress
import os
import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from labhost.errors import LabhostError
from labhost.host import Host, User
from labhost.network import addresses
from labhost.system import files, run

PREFIX = "lxc-u"  # dnsmasq of lxc-net answers on `lxc*`; ten digits may follow
_OURS = re.compile(rf"{PREFIX}[0-9]{{1,10}}", re.ASCII)
# Below /proc/sys/net. Without IPv6 no router advertisement is read. rp_filter also keeps forged senders of ARP out of
# the server's neighbour table; with proxy_arp, containers reach each other through the server, which filters.
_SETTINGS = {
    "ipv6/conf/{}/disable_ipv6": "1",
    "ipv6/conf/{}/accept_ra": "0",
    "ipv4/conf/{}/rp_filter": "1",
    "ipv4/conf/{}/proxy_arp": "1",
    "ipv4/neigh/{}/proxy_delay": "0",
}
# Below /sys/class/net/NAME/bridge. With an ageing time of 0 it learns no addresses, so none can be stolen or flooded.
_OPTIONS = {"ageing_time": "0", "forward_delay": "0", "multicast_snooping": "0"}
_GET_ADDRESS, _PERMANENT = 0x8915, 0x4  # SIOCGIFADDR, and ATF_PERM of /proc/net/arp


class Bridge(NamedTuple):
    name: str
    gateway: str  # the same address on each bridge
    address: str
    mac: str  # of the container

    @property
    def own_mac(self) -> str:
        """Fixed: without one, a bridge takes the address of its port, which changes."""
        return "02" + addresses.mac_address(self.gateway)[2:]


def name_of(user: User) -> str:
    return f"{PREFIX}{user.uid}"


def bridge_of(host: Host, user: User) -> Bridge:
    gateway = host.config.container.gateway
    return Bridge(name_of(user), gateway, user.address, addresses.mac_address(user.address))


def exists(host: Host, name: str) -> bool:
    return (host.paths.interfaces / name / "bridge").is_dir()


def ports(host: Host, name: str) -> list[str]:
    """The veths on a bridge: one while the container runs."""
    folder = host.paths.interfaces / name / "brif"
    return os.listdir(folder) if folder.is_dir() else []


def allow_hairpin(host: Host, name: str) -> None:
    """Lets a container reach its own ports through the server's address where bridged packets pass iptables.

    There (with br_netfilter, which Docker loads) a packet returns to the bridge port that it came from, which a
    bridge allows only in hairpin mode. Elsewhere the packet is routed and nothing has to be done.
    """
    if _read(host.paths.sysctls / "bridge/bridge-nf-call-iptables") == "1":
        for port in ports(host, name):
            with suppress(FileNotFoundError):  # the container stopped
                (host.paths.interfaces / name / "brif" / port / "hairpin_mode").write_text("1\n")


def converge(host: Host, wanted: Iterable[Bridge]) -> None:
    """Makes these bridges, corrects them, and deletes all other ones of ours that no container uses."""
    wanted = list(wanted)
    ensure(host, wanted)
    _ip("".join(f"link delete dev {name}\n" for name in extra(host, wanted)))


def ensure(host: Host, bridges: Iterable[Bridge]) -> None:
    """Makes or corrects these bridges. LabhostError if another interface has such a name."""
    tables = _Tables(host)
    bridges = [bridge for bridge in bridges if _fault(host, tables, bridge)]
    for bridge in bridges:
        if (host.paths.interfaces / bridge.name).exists() and not exists(host, bridge.name):
            text = f"the interface {bridge.name} is not a bridge of Lab IAM; rename it"
            raise LabhostError(text, reason="bridge_name_taken", bridge=bridge.name)
    _ip(render_new(bridge for bridge in bridges if not exists(host, bridge.name)))
    for bridge in bridges:
        for path, value in _values(host, bridge.name).items():
            if _read(path) != value:
                path.write_text(value)
    tables = _Tables(host)
    _ip(render_addresses(bridge for bridge in bridges if tables.fault(bridge)))


def remove(host: Host, name: str) -> None:
    if _OURS.fullmatch(name) and exists(host, name):
        _ip(f"link delete dev {name}\n")


def faults(host: Host, wanted: Iterable[Bridge]) -> list[str]:
    """What differs from these bridges, one text for each."""
    tables = _Tables(host)
    return [text for bridge in wanted if (text := _fault(host, tables, bridge))]


def extra(host: Host, wanted: Iterable[Bridge]) -> list[str]:
    """Bridges of ours that belong to nobody; one with a container on it stays until that has stopped."""
    names = {bridge.name for bridge in wanted}
    every = os.listdir(host.paths.interfaces) if host.paths.interfaces.is_dir() else []
    found = (name for name in every if _OURS.fullmatch(name) and name not in names and exists(host, name))
    return sorted(name for name in found if not ports(host, name))


def weakened(host: Host) -> bool:
    """True if the server's own rp_filter overrides that of the bridges: the larger one counts."""
    return _read(host.paths.sysctls / "ipv4/conf/all/rp_filter") == "2"


def render_new(bridges: Iterable[Bridge]) -> str:
    """Input of `ip -batch` that makes bridges, still down: they are up once IPv6 is off."""
    return "".join(f"link add dev {bridge.name} address {bridge.own_mac} type bridge\n" for bridge in bridges)


def render_addresses(bridges: Iterable[Bridge]) -> str:
    """The same for what leads to the container, and to nothing else: its route, and who it is."""
    lines = []
    for name, gateway, address, mac in bridges:
        own_mac = Bridge(name, gateway, address, mac).own_mac
        lines += [
            f"address flush dev {name}",
            f"route flush dev {name}",
            f"address add {gateway}/32 dev {name}",
            f"link set dev {name} address {own_mac} up",
            f"route replace {address}/32 dev {name}",
            f"neighbour replace {address} lladdr {mac} dev {name} nud permanent",
        ]
    return "".join(f"{line}\n" for line in lines)


class _Tables:
    """Routes and neighbours of all bridges, see proc(5): /proc/net/route has addresses in host order."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.routes: dict[str, set[tuple[str, str]]] = {}
        for row in _rows(files.read_text(host.paths.network / "route", 64 << 20)):
            self.routes.setdefault(row[0], set()).add((_from_hex(row[1]), _from_hex(row[7])))
        arp = _rows(files.read_text(host.paths.network / "arp", 64 << 20))
        self.neighbours = {(row[5], row[0]): row[3] for row in arp if int(row[2], 16) & _PERMANENT}

    def fault(self, bridge: Bridge) -> str:
        """The first thing that is wrong with its link, address, route or neighbour entry; empty if nothing is."""
        folder = self.host.paths.interfaces / bridge.name
        if _read(folder / "address") != bridge.own_mac or not int(_read(folder / "flags") or "0", 16) & 1:
            return "link"
        if _address(bridge.name) != bridge.gateway:
            return "address"
        if self.routes.get(bridge.name) != {(bridge.address, "255.255.255.255")}:
            return "route"
        return "" if self.neighbours.get((bridge.name, bridge.address)) == bridge.mac else "neighbour entry"


def _fault(host: Host, tables: _Tables, bridge: Bridge) -> str:
    if not exists(host, bridge.name):
        return f"the bridge {bridge.name} is missing"
    wrong = [path.name for path, value in _values(host, bridge.name).items() if _read(path) != value]
    text = ", ".join([*wrong, *filter(None, [tables.fault(bridge)])])
    return text and f"the bridge {bridge.name} is wrong: {text}"


def _rows(text: str | None) -> list[list[str]]:
    return [line.split() for line in (text or "").splitlines()[1:]]


def _from_hex(text: str) -> str:
    return str(ipaddress.IPv4Address(struct.pack("=I", int(text, 16))))


def _address(name: str) -> str:
    """An interface's IPv4 address, empty without one, see netdevice(7)."""
    import socket  # here, since set-keys imports this module, but never calls it

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        try:
            answer = fcntl.ioctl(peer, _GET_ADDRESS, struct.pack("256s", name.encode()))
        except OSError:
            return ""
    return str(ipaddress.IPv4Address(answer[20:24]))


def _values(host: Host, name: str) -> dict[Path, str]:
    """The files of its settings, with the right texts. Where the kernel has no IPv6 there is none to set."""
    options = {host.paths.interfaces / name / "bridge" / key: value for key, value in _OPTIONS.items()}
    settings = {host.paths.sysctls / key.format(name): value for key, value in _SETTINGS.items()}
    has_ipv6 = (host.paths.sysctls / "ipv6").is_dir()
    return {**options, **{path: value for path, value in settings.items() if has_ipv6 or "ipv6" not in path.parts}}


def _read(path: Path) -> str:
    return (files.read_text(path) or "").strip()


def _ip(batch: str) -> None:
    if batch:
        result = run(["/usr/sbin/ip", "-force", "-batch", "-"], timeout=60, stdin=batch.encode())
        result.check("the containers' bridges cannot be set", reason="bridges_not_set")
