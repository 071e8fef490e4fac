"""Ports of the server that a person forwards to TCP ports of the container, besides the SSH port."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from labhost.errors import Refused
from labhost.host import Host, User, locks, user_state

LISTENING = "0A"  # the state of a listening socket in /proc/net/tcp, see tcp_states.h
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


class ForwardedPort(NamedTuple):
    container_port: int
    server_port: int


def list_forwards(host: Host, user: User) -> list[ForwardedPort]:
    """The person's forwarded ports that host.conf still allows."""
    return [pair for pair in _pairs(user) if is_forwardable(host, pair.server_port)]


def is_forwardable(host: Host, port: int) -> bool:
    return host.config.server.forwards.contains(port) and not host.config.server.ports.contains(port)


def add(host: Host, user: User, container_port: int, server_port: int | None) -> ForwardedPort:
    """Forwards `server_port`, or the first free one, to `container_port`. Refused. The user's lock must be held."""
    limit = host.config.server.forwards_each
    with locks.ports(host):
        pairs = _pairs(user)
        for pair in pairs:
            if pair.container_port == container_port and server_port in (None, pair.server_port):
                return pair
            if pair.container_port == container_port:
                text = f"port {pair.server_port} leads to {container_port} already; first: port -d {container_port}"
                raise Refused(text, reason="already_forwarded", **pair._asdict())
        if not limit:
            raise Refused("this server forwards no ports; ask the lab's staff", reason="no_forwards")
        if len(pairs) >= limit:
            text = f"you have {len(pairs)} of {limit} ports; remove one first: port -d N"
            raise Refused(text, reason="too_many_forwards", used=len(pairs), limit=limit)
        taken = {pair[1] for other in user_state.all_users(host) for pair in other.forwards}
        taken |= occupied()
        chosen = ForwardedPort(container_port, _choose(host, server_port, taken))
        _save(host, user, [*pairs, chosen])
    return chosen


def remove(host: Host, user: User, port: int) -> ForwardedPort:
    """Removes the forwarding to this port of the container, else from this one of the server. Needs the user's lock."""
    pairs = _pairs(user)
    found = next((pair for place in (0, 1) for pair in pairs if pair[place] == port), None)
    if found is None:
        raise Refused(f"you have no port {port} here; see: port", reason="not_forwarded", port=port)
    _save(host, user, [pair for pair in pairs if pair != found])
    return found


def _pairs(user: User) -> list[ForwardedPort]:
    return [ForwardedPort(*pair) for pair in user.forwards]


def _save(host: Host, user: User, pairs: Iterable[ForwardedPort]) -> None:
    user.forwards = sorted(map(list, pairs))
    user_state.save_user(host, user)


def _choose(host: Host, wanted: int | None, taken: set[int]) -> int:
    first, last = host.config.server.forwards.first, host.config.server.forwards.last
    if wanted is None:
        free = (port for port in range(first, last + 1) if port not in taken and is_forwardable(host, port))
        if (port := next(free, None)) is None:
            text = f"no port from {first} to {last} is free; ask the lab's staff"
            raise Refused(text, reason="no_free_port", first=first, last=last)
        return port
    if not is_forwardable(host, wanted):
        text = f"this server forwards ports from {first} to {last}, not {wanted}"
        raise Refused(text, reason="port_out_of_range", port=wanted, first=first, last=last)
    if wanted in taken:
        text = f"port {wanted} is in use; choose another, or let the server choose: port N"
        raise Refused(text, reason="port_in_use", port=wanted)
    return wanted


def occupied() -> set[int]:
    """Ports on which programs of the server listen now."""
    return listening(path.read_text() for path in TABLES if path.exists())


def listening(tables: Iterable[str]) -> set[int]:
    """Ports on which the server listens, from the texts of /proc/net/tcp and tcp6, see proc(5)."""
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == LISTENING}
