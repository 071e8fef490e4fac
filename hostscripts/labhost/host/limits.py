"""Limits of one container as the portal states them: judged as hostile, kept, and turned into cgroup2 values.

The portal's text is `key=value` lines, one for each of KEYS; `max` means without limit.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from labhost.errors import PortalUnavailable
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.system import formatting

MEGABYTE = 1 << 20
PERIOD = 100_000  # microseconds, the kernel's own period of cpu.max
NONE, ALL = "max", "all"
KEYS = ("memory", "cpus", "processes", "gpus", "disk")
MIN_MEMORY = 256 * MEGABYTE  # below, systemd in a container does not come up
MIN_PROCESSES = 64
CONTROLLER = {"memory": "memory", "cpus": "cpu", "processes": "pids"}


def parse(text: str) -> dict[str, str]:
    """The limits that are set, each as the portal's own word; PortalUnavailable if any line is not acceptable."""
    found: dict[str, str] = {}
    for line in text.splitlines()[: len(KEYS) + 1]:
        key, equals, value = line.partition("=")
        if not equals or key not in KEYS or key in found or not _acceptable(key, value):
            raise PortalUnavailable("the portal's limits are not acceptable; ask the lab's staff")
        found[key] = value
    if set(found) != set(KEYS):
        raise PortalUnavailable("the portal's limits are not complete; ask the lab's staff")
    return {key: value for key, value in found.items() if value != (ALL if key == "gpus" else NONE)}


def _acceptable(key: str, value: str) -> bool:
    if key == "gpus":
        return value in (ALL, "none") or re.fullmatch(r"[0-9]{1,2}(,[0-9]{1,2}){0,63}", value, re.ASCII) is not None
    if value == NONE:
        return True
    if key == "cpus":
        number = re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,2})?", value, re.ASCII)
        return number is not None and float(value) >= 0.1
    if not re.fullmatch(r"[1-9][0-9]{0,15}", value, re.ASCII):
        return False
    return int(value) >= {"memory": MIN_MEMORY, "processes": MIN_PROCESSES, "disk": MEGABYTE}[key]


def gpus(user: User) -> frozenset[int] | None:
    """Numbers of the GPUs that the container may have; None if all."""
    value = user.limits.get("gpus", ALL)
    if value == ALL:
        return None
    return frozenset() if value == "none" else frozenset(int(number) for number in value.split(","))


def controllers(host: Host, user: User) -> frozenset[str]:
    """What the kernel lets the person's user manager control, see cgroups(7); empty before it was ever started."""
    folder = host.paths.cgroups / f"user.slice/user-{user.uid}.slice/user@{user.uid}.service"
    try:
        return frozenset(Path(folder, "cgroup.controllers").read_text().split())
    except OSError:
        return frozenset()


def render(limits: Mapping[str, str], available: Collection[str]) -> list[str]:
    """Lines of the LXC configuration. Without its controller a value is a comment: LXC would refuse to start."""
    values = {}
    if "memory" in limits:
        values["memory"] = f"memory.max = {limits['memory']}"
    if "cpus" in limits:
        values["cpus"] = f"cpu.max = {round(float(limits['cpus']) * PERIOD)} {PERIOD}"
    if "processes" in limits:
        values["processes"] = f"pids.max = {limits['processes']}"
    lines = []
    for key, text in values.items():
        mark = "" if CONTROLLER[key] in available else f"# no {CONTROLLER[key]} controller here: "
        lines.append(f"{mark}lxc.cgroup2.{text}")
    return lines


def not_enforced(limits: Mapping[str, str], available: Collection[str]) -> list[str]:
    """Limits that stand on paper only, because this server has nothing that enforces them."""
    missing = [key for key in limits if key in CONTROLLER and CONTROLLER[key] not in available]
    return missing + (["disk"] if "disk" in limits else [])


def summary(limits: Mapping[str, str], available: Collection[str]) -> str:
    """One line for people."""
    if not limits:
        return "none"
    weak = not_enforced(limits, available)
    return ", ".join(
        _phrase(key, limits[key]) + (" (not enforced here)" if key in weak else "") for key in _set(limits)
    )


def _set(limits: Mapping[str, str]) -> Iterable[str]:
    return (key for key in KEYS if key in limits)


def _phrase(key: str, value: str) -> str:
    if key in ("memory", "disk"):
        return f"{key} {formatting.size(int(value))}"
    if key == "gpus":
        return "no GPUs" if value == "none" else f"GPUs {value}"
    return f"{value} {'CPUs' if key == 'cpus' else key}"
