"""Ports of the server that a person leads to ports (TCP) of her container, besides her own for SSH."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labhost.errors import Refused
from labhost.host import locks, user_state
from labhost.host.config import Host
from labhost.host.user_state import User

LISTENING = "0A"  # the state of a listening socket in /proc/net/tcp, see tcp_states.h
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


@dataclass(frozen=True)
class ForwardedPort:
    container_port: int
    server_port: int


def list_forwards(host: Host, user: User) -> list[ForwardedPort]:
    """The person's forwards that this server may still have: host.conf may have changed since they were made."""
    pairs = [ForwardedPort(inside, outside) for inside, outside in user.forwards]
    return [pair for pair in pairs if is_forwardable(host, pair.server_port)]


def is_forwardable(host: Host, port: int) -> bool:
    return host.config.server.forwards.contains(port) and not host.config.server.ports.contains(port)


def add(host: Host, user: User, inside: int, outside: int | None) -> ForwardedPort:
    """Leads `outside`, or the first free port, to `inside`; Refused says why not. The user's lock must be held."""
    with locks.hold(host, locks.PORTS, seconds=30, doing="ports are being given out"):
        mine = [ForwardedPort(*pair) for pair in user.forwards]
        for pair in mine:
            if pair.container_port == inside and outside in (None, pair.server_port):
                return pair
            if pair.container_port == container_port:
                raise Refused(f"port {pair.server_port} leads to {inside} already; first: port -d {inside}")
        if len(mine) >= host.config.server.forwards_each:
            raise Refused(
                f"you have {len(mine)} of {host.config.server.forwards_each} ports; give one back with: port -d N"
                if mine
                else "this server gives out no ports; ask the lab's staff"
            )
        held = {pair[1] for other in user_state.all_users(host) for pair in other.forwards}
        chosen = ForwardedPort(inside, _choose(host, outside, held | listening(_tables())))
        user.forwards = sorted([*user.forwards, [chosen.container_port, chosen.server_port]])
        user_state.save_user(host, user)
    return chosen


def remove(host: Host, user: User, number: int) -> ForwardedPort:
    """Takes back the forward to the container's port `number`, or from the server's. The user's lock must be held."""
    pairs = [ForwardedPort(*pair) for pair in user.forwards]
    found = [pair for pair in pairs if pair.container_port == number] or [pair for pair in pairs if pair.server_port == number]
    if not found:
        raise Refused(f"you have no port {number} here; see: port")
    user.forwards = [pair for pair in user.forwards if pair != [found[0].container_port, found[0].server_port]]
    user_state.save_user(host, user)
    return found[0]


def _choose(host: Host, wanted: int | None, taken: set[int]) -> int:
    first, last = host.config.server.forwards.first, host.config.server.forwards.last
    if wanted is None:
        free = (port for port in range(first, last + 1) if port not in taken and is_forwardable(host, port))
        if (port := next(free, None)) is None:
            raise Refused(f"no port from {first} to {last} is free; ask the lab's staff")
        return port
    if not is_forwardable(host, wanted):
        raise Refused(f"this server leads ports from {first} to {last}; {wanted} is not for that")
    if wanted in taken:
        raise Refused(f"port {wanted} is in use; choose another, or none: port N")
    return wanted


def _tables() -> Iterable[str]:
    return [path.read_text() for path in TABLES if path.exists()]


def listening(tables: Iterable[str]) -> set[int]:
    """Ports on which a socket of the server listens, from the texts of /proc/net/tcp and tcp6, see proc(5)."""
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == LISTENING}
