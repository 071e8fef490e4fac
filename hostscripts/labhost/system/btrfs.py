"""Subvolumes of btrfs and their qgroup limits, see btrfs-ioctl(2) and btrfs-quota(8). Paths are root's own; OSError."""

import errno
import fcntl
import os
import struct
from pathlib import Path

from labhost.system.openat2 import directory

_SUBVOL_CREATE, _QUOTA_CTL, _QGROUP_LIMIT = 0x5000940E, 0xC0109428, 0x8030942B
_FS_INFO, _INO_LOOKUP = 0x8400941F, 0xD0009412
_ENABLE, _MAX_REFERENCED, _NO_LIMIT = 1, 1, 2**64 - 1
_FIRST_INODE = 256  # of each subvolume
_SYSFS = Path("/sys/fs/btrfs")


def is_btrfs(path: Path) -> bool:
    with directory(path) as fd:
        return _subvolume(fd) != 0


def is_subvolume(path: Path) -> bool:
    """True if a subvolume begins at this folder."""
    with directory(path) as fd:
        return os.fstat(fd).st_ino == _FIRST_INODE and _subvolume(fd) != 0


def create_subvolume(path: Path) -> None:
    """Creates an empty subvolume of root's with mode 755, as mkdir would create a folder."""
    with directory(path.parent) as parent:
        _ioctl(parent, _SUBVOL_CREATE, struct.pack("q4088s", 0, os.fsencode(path.name)))


def set_limit(path: Path, size: int) -> None:
    """Limits the bytes of the subvolume that begins here; 0 for no limit. Quotas are enabled when they are needed."""
    with directory(path) as subvolume:
        limit = struct.pack("6Q", _subvolume(subvolume), _MAX_REFERENCED, size or _NO_LIMIT, 0, 0, 0)
    with directory(path.parent) as fd:  # by a descriptor in the subvolume itself it fails once that is over its limit
        try:
            _ioctl(fd, _QGROUP_LIMIT, limit)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            if size:
                _ioctl(fd, _QUOTA_CTL, struct.pack("2Q", _ENABLE, 0))
                _ioctl(fd, _QGROUP_LIMIT, limit)


def usage(path: Path) -> tuple[int, int] | None:
    """Bytes in the subvolume that begins here, and its limit (0 for none); None while quotas are not enabled.

    The kernel counts when it writes to the disk, so new bytes are seen after up to 30 seconds.
    """
    with directory(path) as fd:
        text = _ioctl(fd, _FS_INFO, bytes(1024))[16:32].hex()
        identity = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
        group = _SYSFS / identity / "qgroups" / f"0_{_subvolume(fd)}"
    try:
        flags = int((group / "limit_flags").read_text())
        limit = int((group / "max_referenced").read_text()) if flags & _MAX_REFERENCED else 0
        return int((group / "referenced").read_text()), limit
    except FileNotFoundError:
        return None


def _subvolume(fd: int) -> int:
    """The id of the subvolume that contains the folder; 0 if it is not on btrfs."""
    try:
        found = _ioctl(fd, _INO_LOOKUP, struct.pack("2Q", 0, _FIRST_INODE).ljust(4096, b"\0"))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
            return 0
        raise
    return int(struct.unpack_from("Q", found)[0])


def _ioctl(fd: int, request: int, data: bytes) -> bytes:
    buffer = bytearray(data)
    fcntl.ioctl(fd, request, buffer)
    return bytes(buffer)
