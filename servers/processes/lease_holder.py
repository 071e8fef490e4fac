"""The name under which a process of this machine holds a lease, and whether that process is gone."""

import functools
import os
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")


def current() -> str:
    """This process, told apart from every other one: boot, process id namespace, process id, start time."""
    return f"{_world()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(holder: str) -> bool:
    """True only if it lived here, in this boot and namespace, and has ended; of others nothing is known."""
    world, _, rest = holder.rpartition(":")[0].rpartition(":")
    started = holder.rpartition(":")[2]
    return world == _world() and rest.isdecimal() and _started(int(rest)) != started


@functools.cache
def _world() -> str:
    return f"{BOOT.read_text()[:8]}:{Path('/proc/self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str:
    """Start time in clock ticks since boot; "" if there is no such process or only its remains. proc(5)"""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]
