"""The IP and hardware address of each container on the bridge."""

import ipaddress
import re
from collections.abc import Iterable

from labhost.errors import LabhostError
from labhost.host import Config, Host, User
from labhost.system import files

FIRST_HOST = 10  # lower ones are for the bridge and lxc-net's own DHCP


def address_for(host: Host, user: User, others: Iterable[User]) -> str:
    """The person's own address if it is still valid, else the first free one. The accounts lock must be held."""
    net = host.config.container.network
    taken = {other.address for other in others} | _leases(host, own=user.address)
    if in_network(host.config, user.address) and user.address not in taken:
        return user.address
    for number in range(int(net.network_address) + FIRST_HOST, int(net.broadcast_address)):
        address = str(ipaddress.IPv4Address(number))
        if address not in taken:
            return address
    text = f"no address is free in {net}; ask the lab's staff for a larger [container] network"
    raise LabhostError(text, reason="no_free_address", network=str(net))


def in_network(config: Config, address: str) -> bool:
    return bool(address) and ipaddress.IPv4Address(address) in config.container.network


def mac_address(address: str) -> str:
    """A MAC address from Xen's block, as LXC uses; unique on the bridge because the IP address is."""
    return "00:16:3e:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed[1:])


def _leases(host: Host, *, own: str) -> set[str]:
    """Addresses that lxc-net's dnsmasq leased to others: `expiry MAC address name id` in its lease file."""
    text = files.read_text(host.paths.leases / f"dnsmasq.{host.config.container.bridge}.leases") or ""
    found = [match for line in text.splitlines() if (match := re.match(r"\S+ (\S+) ([0-9.]+) ", line))]
    mine = (mac_address(own), own) if own else ()
    return {match[2] for match in found if match.groups() != mine}
