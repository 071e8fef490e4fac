"""Free blocks and inodes of the file systems that this server needs, and whether they are low."""

import os
from pathlib import Path
from typing import NamedTuple

from labhost.host.config import Host
from labhost.system import formatting, run

LOW, LOW_SHARE, LOW_INODES = 2 << 30, 0.02, 0.05  # bytes; shares of a file system
SMALL_SHARE = 0.1  # a file system below 20 GB is low when less than this share is free
FULL, FULL_INODES = 16 << 20, 256
NAS_SECONDS = 5.0


class Space(NamedTuple):
    """What accounts other than root can use; bytes. `inodes` is 0 if there is no fixed number of them (btrfs)."""

    size: int
    free: int
    inodes: int
    free_inodes: int

    @property
    def shortage(self) -> str:
        """What is low, in a few words; empty if there is enough."""
        low = [f"{formatting.size(self.free)} free"] if self.free < self._low_bytes else []
        if self.inodes and self.free_inodes < self.inodes * LOW_INODES:
            low.append(f"{self.free_inodes} inodes (files) free")
        return ", ".join(low)

    @property
    def is_full(self) -> bool:
        return self.free < min(FULL, self.size * LOW_SHARE) or (self.inodes > 0 and self.free_inodes < FULL_INODES)

    @property
    def _low_bytes(self) -> float:
        return max(self.size * LOW_SHARE, min(LOW, self.size * SMALL_SHARE))


def space_of(path: Path) -> Space:
    """Of the file system of `path`; OSError."""
    found = os.statvfs(path)
    unit = found.f_frsize
    return Space(found.f_blocks * unit, found.f_bavail * unit, found.f_files, found.f_favail)


def local(host: Host) -> dict[str, Space]:
    """Of the homes, which containers fill, and of labhost's own state; for the portal."""
    return {"homes": space_of(host.paths.home), "state": space_of(host.paths.state)}


def shared_by_state(host: Host) -> bool:
    """True if containers can fill the file system of labhost's own state."""
    return os.stat(host.paths.state).st_dev == os.stat(host.paths.home).st_dev


def low(host: Host) -> dict[str, str]:
    """Path -> shortage, of file systems that are low: homes, state, /etc, snapshots."""
    paths = [host.paths.home, host.paths.state, host.paths.config.parent]
    devices = {os.stat(path).st_dev: path for path in reversed(paths)}
    found = {str(path): space_of(path).shortage for path in paths if path in devices.values()}
    if host.config.snapshots.folder is not None:
        found[str(host.config.snapshots.folder)] = _shortage_of_nas(host.config.snapshots.folder)
    return {path: shortage for path, shortage in found.items() if shortage}


def _shortage_of_nas(path: Path) -> str:
    """Asked by a process of its own: a NAS that is away makes it wait."""
    result = run(["/usr/bin/stat", "-f", "-c", "%S %b %a %c %d", "--", str(path)], timeout=NAS_SECONDS)
    numbers = [int(word) for word in result.out.split() if word.isdigit()]
    if not result.ok or len(numbers) != 5:
        return ""  # whether it is mounted is asked elsewhere
    unit, blocks, free, inodes, free_inodes = numbers
    return Space(blocks * unit, free * unit, inodes, free_inodes).shortage


def warning(host: Host) -> str:
    """For people whose container has no room; empty if it has."""
    if not space_of(host.paths.home).is_full:
        return ""
    server = host.config.server.name
    return f"the disk of {server} is full: delete files that you do not need, or ask the lab's staff"
