"""A person's ~/.ssh/config: two names for each server, one for the server and one for the container on it."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A server as people reach it: `address` is an IP address or a DNS name."""

    name: str
    address: str
    ssh_port: int = 22


def render(servers: Iterable[Target], *, user: str, port: int) -> str:
    """The text for `user`, whose containers listen on `port`. Hosts leave out any other keyword (ssh_config(5))."""
    return "\n".join(
        _host(f"{server.name}-manage", server, user, server.ssh_port) + "\n" + _host(server.name, server, user, port)
        for server in servers
    )


def _host(alias: str, server: Target, user: str, port: int) -> str:
    own_port = [f"Port {port}"] if port != 22 else []
    # HostKeyAlias: the server and the container have one address and different host keys.
    lines = [f"HostName {server.address}", *own_port, f"User {user}", f"HostKeyAlias {alias}"]
    return f"Host {alias}\n" + "".join(f"    {line}\n" for line in lines)
