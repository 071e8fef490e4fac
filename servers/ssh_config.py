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
    """The text for `user` whose containers listen on `port`; "" without servers.

    Only the keywords Host, HostName, Port, User and HostKeyAlias (ssh_config(5)): hosts leave out any other.
    """
    return "\n".join(_manage(server, user) + "\n" + _container(server, user, port) for server in servers)


def _manage(server: Target, user: str) -> str:
    own_port = [] if server.ssh_port == 22 else [f"Port {server.ssh_port}"]
    return _host(f"{server.name}-manage", [f"HostName {server.address}", *own_port, f"User {user}"])


def _container(server: Target, user: str, port: int) -> str:
    return _host(server.name, [f"HostName {server.address}", f"Port {port}", f"User {user}"])


def _host(alias: str, lines: list[str]) -> str:
    # HostKeyAlias: the server and the container have one address and different host keys.
    return "".join(
        f"{line}\n" for line in (f"Host {alias}", *(f"    {line}" for line in lines), f"    HostKeyAlias {alias}")
    )
