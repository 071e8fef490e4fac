"""Reservations for lxc-net's dnsmasq: a container that insists on DHCP gets its own address.

One file per person in the folder that dnsmasq watches (`dhcp-hostsdir`, see dnsmasq(8)), which
setup-gpu-server.bash configures.
"""

from collections.abc import Iterable

from labhost.host import Host, User
from labhost.network import addresses
from labhost.system import files, is_name


def reserve(host: Host, user: User) -> None:
    if host.paths.dhcp_hosts.is_dir():
        line = f"{addresses.mac_address(user.address)},{user.address}\n"
        files.write_atomic(host.paths.dhcp_hosts / user.name, line, mode=0o644)


def keep_only(host: Host, names: Iterable[str]) -> None:
    """Removes all other reservations; dnsmasq drops them at its next start."""
    wanted = set(names)
    if host.paths.dhcp_hosts.is_dir():
        for path in host.paths.dhcp_hosts.iterdir():
            if is_name(path.name) and path.name not in wanted:
                path.unlink()
