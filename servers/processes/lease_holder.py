"""The name under which a process holds a lease, and whether that process has ended."""

import functools
import os
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")


def current() -> str:
    """The unique name of this process: boot, process id namespace, process id, start time."""
    return f"{_machine()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(holder: str) -> bool:
    """True only if it ran in this boot and namespace and has ended; nothing is known about others."""
    machine, _, pid = holder.rpartition(":")[0].rpartition(":")
    started = holder.rpartition(":")[2]
    return machine == _machine() and pid.isdecimal() and _started(int(pid)) != started


@functools.cache
def _machine() -> str:
    return f"{BOOT.read_text()[:8]}:{Path('/proc/self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str:
    """Start time in clock ticks since boot; "" if there is no such process, or only a zombie. proc(5)"""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]
