"""`status`: the state, ports, limits and driver of a person's container, for people and for programs."""

from typing import Any

from labhost.container import lifecycle
from labhost.gpu import nvidia
from labhost.host import Host, User, disk_space, limits
from labhost.network import forwards
from labhost.storage import drivers
from labhost.system import Progress, formatting


def collect(host: Host, user: User) -> dict[str, Any]:
    """What programs get (--json). `limits_not_enforced` are those that this server has no means to enforce.

    `disk_used` is in bytes, for everything in the container's folder; None where the kernel does not count it.
    """
    available, disk = _enforceable(host, user), drivers.driver_of(host, user).disk_usage(user)
    return {
        "user": user.name,
        "server": host.config.server.name,
        "state": "running" if lifecycle.is_running(host, user) else "stopped",
        "desired_state": user.desired_state,
        "server_address": host.config.server.address,
        "port": user.port,
        "address": user.address,
        "ports": [pair._asdict() for pair in forwards.list_forwards(host, user)],
        "limits": user.limits,
        "limits_not_enforced": limits.not_enforced(user.limits, available),
        "disk_used": None if disk is None else disk.used,
        "driver": {
            "server": nvidia.host_version(host.config),
            "container": nvidia.container_version(host, user),
            "mode": host.config.driver.mode,
        },
        "portal_values_at": int(user.fetched_at),
        "warning": disk_space.warning(host),
    }


def show(host: Host, user: User, progress: Progress) -> None:
    """The same for people; the next step last."""
    found = collect(host, user)
    name, running = host.config.server.name, found["state"] == "running"
    progress.write(f"{user.name} on {name}: {found['state']}")
    if not running and user.desired_state == "running":
        progress.write("warning: it was started but is not running: it ended by itself, or the server was restarted")
    if found["warning"]:
        progress.write(f"warning: {found['warning']}")
    progress.write(f"port: {user.port}, address: {user.address}")
    ports = [f"{pair['server_port']} to {pair['container_port']}" for pair in found["ports"]]
    progress.write(f"forwarded ports: {', '.join(ports) or 'none'}")
    progress.write(f"limits: {limits.summary(user.limits, _enforceable(host, user))}")
    if found["disk_used"] is not None:
        progress.write(f"disk: {formatting.size(found['disk_used'])} used")
    progress.write(f"driver: {_driver(found['driver'])}")
    progress.write(f"values from the portal: {formatting.moment(user.fetched_at)}")
    progress.write(f"next: ssh {name}" if running else f"next: ssh {name}-manage to start it")


def _enforceable(host: Host, user: User) -> frozenset[str]:
    enforced = drivers.driver_of(host, user).disk_limit_enforced(user)
    return limits.controllers(host, user) | ({"disk"} if enforced else frozenset())


def _driver(found: dict[str, str]) -> str:
    if not found["server"]:
        return "none on the server"
    if found["mode"] == "bind":
        return f"{found['server']}, shared by the server"
    return f"{found['server']} on the server, {found['container'] or 'none'} in the container"
