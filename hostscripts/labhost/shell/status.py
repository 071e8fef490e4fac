"""`status`: what a person's container is and has, for people and for programs."""

from typing import Any

from labhost.container import lifecycle
from labhost.gpu import nvidia
from labhost.host import limits
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.network import forwards
from labhost.system import formatting
from labhost.system.progress import Progress


def facts(host: Host, user: User) -> dict[str, Any]:
    """What programs get (--json). `limits_not_enforced`: what this server has no means to enforce."""
    available = limits.controllers(host, user)
    return {
        "user": user.name,
        "server": host.config.name,
        "state": "running" if lifecycle.runs(host, user) else "stopped",
        "wanted": user.wanted,
        "server_address": host.config.address,
        "port": user.port,
        "address": user.address,
        "ports": [{"inside": pair.inside, "outside": pair.outside} for pair in forwards.of(host, user)],
        "limits": user.limits,
        "limits_not_enforced": limits.not_enforced(user.limits, available),
        "driver": {
            "server": nvidia.host_version(host.config),
            "inside": nvidia.inside(host, user),
            "mode": host.config.driver,
        },
        "portal_values_at": int(user.values_at),
    }


def show(host: Host, user: User, say: Progress) -> None:
    """The same for people; the next step last."""
    found = facts(host, user)
    name, running = host.config.name, found["state"] == "running"
    say.line(f"{user.name} on {name}: {found['state']}")
    if not running and user.wanted == "running":
        say.line(
            "warning: it was started, but does not run (any more): it ended by itself, or the server was restarted"
        )
    say.line(f"port: {user.port}, address: {user.address}")
    say.line(f"ports: {words_of_ports(host, user)}")
    say.line(f"limits: {limits.words(user.limits, limits.controllers(host, user))}")
    say.line(f"driver: {_driver(found['driver'])}")
    say.line(f"portal: values of {formatting.moment(user.values_at)}")
    say.line(f"now: ssh {name}" if running else f"to start it: ssh {name}-manage")


def words_of_ports(host: Host, user: User) -> str:
    pairs = [f"{pair.outside} leads to {pair.inside}" for pair in forwards.of(host, user)]
    return ", ".join(pairs) or "none besides your own"


def _driver(found: dict[str, str]) -> str:
    if not found["server"]:
        return "none on the server"
    if found["mode"] == "bind":
        return f"{found['server']}, shared by the server"
    return f"{found['server']} on the server, {found['inside'] or 'none'} inside"
