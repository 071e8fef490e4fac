"""A container's limits: parsed from the portal's text, which is not trusted, and rendered as cgroup2 values.

The text has one `key=value` line for each of KEYS; `max` means no limit.
"""

import re
import resource
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from labhost.errors import PortalUnavailable
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.system import formatting, printable

MEGABYTE = 1 << 20
PERIOD = 100_000  # microseconds, the kernel's own period of cpu.max
NONE, ALL = "max", "all"
KEYS = ("memory", "cpus", "processes", "gpus", "disk")
MIN_MEMORY = 256 * MEGABYTE  # below, systemd in a container does not come up
MIN_PROCESSES = 64
DEFAULT_PROCESSES = 8192  # without a limit of the portal: no container takes what the others and the server need
PTYS = 256  # of the 4096 that the kernel has, of which it reserves 1024 for the server
CONTROLLER = {"memory": "memory", "cpus": "cpu", "processes": "pids"}


def parse(text: str) -> dict[str, str]:
    """The limits that are set, as the portal wrote them; PortalUnavailable if a line is invalid or missing."""
    found: dict[str, str] = {}
    for line in text.splitlines()[: len(KEYS) + 1]:
        key, equals, value = line.partition("=")
        if not equals or key not in KEYS or key in found or not _is_valid(key, value):
            text = "the portal's limits are invalid; ask the lab's staff"
            raise PortalUnavailable(text, reason="portal_limits_invalid", line=printable(line, 80))
        found[key] = value
    if set(found) != set(KEYS):
        missing = ", ".join(sorted(set(KEYS) - set(found)))
        text = "the portal's limits are incomplete; ask the lab's staff"
        raise PortalUnavailable(text, reason="portal_limits_incomplete", missing=missing)
    return {key: value for key, value in found.items() if value != (ALL if key == "gpus" else NONE)}


def _is_valid(key: str, value: str) -> bool:
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
    """Numbers of the GPUs that the container may use; None for all."""
    value = user.limits.get("gpus", ALL)
    if value == ALL:
        return None
    return frozenset() if value == "none" else frozenset(int(number) for number in value.split(","))


def controllers(host: Host, user: User) -> frozenset[str]:
    """The cgroup controllers that the person's user manager may use, see cgroups(7); empty before its first start."""
    folder = host.paths.cgroups / f"user.slice/user-{user.uid}.slice/user@{user.uid}.service"
    with suppress(OSError):
        return frozenset(Path(folder, "cgroup.controllers").read_text().split())
    return frozenset()


def render(limits: Mapping[str, str], available: Collection[str]) -> list[str]:
    """Lines of the LXC configuration; without its controller a value is a comment, else LXC would not start."""
    lines = [f"lxc.pty.max = {PTYS}"]
    for key in filter(limits.get, CONTROLLER):
        value = f"{round(float(limits[key]) * PERIOD)} {PERIOD}" if key == "cpus" else limits[key]
        comment = "" if CONTROLLER[key] in available else f"# no {CONTROLLER[key]} controller here: "
        lines.append(f"{comment}lxc.cgroup2.{CONTROLLER[key]}.max = {value}")
    return lines


def processes(user: User) -> int:
    """How many processes the container may have, threads included: its user namespace inherits this RLIMIT_NPROC.

    The kernel (5.14) counts everything in the namespace, whatever its uid, against the one that made it. A server that
    is small enough to have a low limit itself needs the other half to stop a container that is full.
    """
    own = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    wanted = int(user.limits.get("processes", DEFAULT_PROCESSES))
    return wanted if own == resource.RLIM_INFINITY else min(wanted, own // 2)


def not_enforced(limits: Mapping[str, str], available: Collection[str]) -> list[str]:
    """Limits that nothing enforces here; `available` has the controllers, and `disk` where a quota holds."""
    bound = {"gpus", "processes"}  # by the device nodes, and by the container's user namespace
    return [key for key in limits if key not in bound and CONTROLLER.get(key, key) not in available]


def summary(limits: Mapping[str, str], available: Collection[str]) -> str:
    """One line for people."""
    limits = {"processes": str(DEFAULT_PROCESSES), **limits}
    weak = not_enforced(limits, available)
    shown = (key for key in KEYS if key in limits)
    return ", ".join(_phrase(key, limits[key]) + (" (not enforced here)" if key in weak else "") for key in shown)


def _phrase(key: str, value: str) -> str:
    if key in ("memory", "disk"):
        return f"{key} {formatting.size(int(value))}"
    if key == "gpus":
        return "no GPUs" if value == "none" else f"GPUs {value}"
    return f"{value} {'CPUs' if key == 'cpus' else key}"
