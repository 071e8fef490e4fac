"""The lab's own network: one network namespace with a bridge, invisible from outside."""

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.lab.shell import run

BRIDGE = "lab0"
# A bridge without its own MAC address takes the lowest of its ports, which changes when a server reboots:
# the servers' neighbour entries for the portal would then be wrong for some seconds.
BRIDGE_MAC = "02:16:ac:10:02:01"
CLONE_NEWNET = 0x40000000


class Namespace:
    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns") / name

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def create(self, addresses: list[str]) -> None:
        """Create it with a bridge that has `addresses` (with their prefix length)."""
        run(["ip", "netns", "add", self.name])
        for arguments in (
            ["link", "set", "lo", "up"],
            ["link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge", "forward_delay", "0"],
            *(["address", "add", address, "dev", BRIDGE] for address in addresses),
            ["link", "set", BRIDGE, "up"],
        ):
            run(["ip", "-n", self.name, *arguments])

    @property
    def processes(self) -> set[int]:
        return set(map(int, run(["ip", "netns", "pids", self.name]).stdout.split()))

    def end_orphans(self) -> None:
        """Processes that a killed run left here, such as an lxc-start that is about to boot a server."""
        end = time.monotonic() + 10
        while (orphans := self._orphans()) and time.monotonic() < end:
            for pid in orphans:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def _orphans(self) -> list[int]:
        """True unless it is this process, one of its parents or one of its children."""
        lines = {pid: _line(pid) for pid in self.processes - set(_line(os.getpid()))}
        return [pid for pid, line in lines.items() if line and os.getpid() not in line]

    def delete(self) -> None:
        if self.exists:
            run(["ip", "netns", "delete", self.name])

    def enter(self) -> None:
        """Move this process (and what it starts from now on) into the namespace.

        Not `ip netns exec`: that hides /sys/fs/cgroup, without which LXC cannot start.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(descriptor, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.path}")
        finally:
            os.close(descriptor)


def _line(pid: int) -> list[int]:
    """A process with its parents, up to the first process; empty if it has ended."""
    found: list[int] = []
    with suppress(OSError):
        while pid > 0:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            found.append(pid)
            pid = parent
    return found
