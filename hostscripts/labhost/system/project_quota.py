"""Project quotas of ext4 and XFS, see quotactl(2) and FS_IOC_FSSETXATTR in ioctl_xfs_fssetxattr(2). Linux >= 5.14.

New files inherit the project of their folder. Only the host's root can change it: the kernel refuses that in user
namespaces. Paths are root's own; OSError.
"""

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import NamedTuple

from labhost.system.openat2 import directory

_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_FSXATTR = "4I12x"  # flags, extent size, number of extents, project, ...
_PROJINHERIT = 0x200
_QUOTACTL_FD = 443  # the same on every architecture
_GETQUOTA, _SETQUOTA, _XGETQSTAT = 0x800007, 0x800008, 0x5805
_PROJECT_QUOTA = 2
_DQBLK = "8QI4x"  # blocks of 1 KiB: hard, soft; bytes; inodes: hard, soft, used; two times; which are valid
_LIMITS_VALID = 1 | 4
_ENFORCED = 1 << 5
_libc = ctypes.CDLL(None, use_errno=True)


class Usage(NamedTuple):
    """Bytes and inodes of a project, and their limits; 0 for none."""

    used: int
    limit: int
    inodes: int
    inode_limit: int


def is_enforced(path: Path) -> bool:
    """True if the file system of this folder enforces project quotas, as mounted with prjquota."""
    try:
        return bool(struct.unpack_from("xxH", _quotactl(path, _XGETQSTAT, 0, bytes(256)))[0] & _ENFORCED)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ESRCH, errno.ENOTBLK, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise


def project_of(path: Path) -> int:
    """0 if the folder has none, or the file system knows none."""
    try:
        with directory(path) as fd:
            return _attributes(fd)[3]
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOENT):
            return 0
        raise


def assign(path: Path, project: int, *, inherit: bool) -> None:
    """Puts a folder into a project; with `inherit`, also all that is created in it later."""
    with directory(path) as fd:
        flags, extent, extents, _ = _attributes(fd)
        wanted = flags | _PROJINHERIT if inherit else flags & ~_PROJINHERIT
        fcntl.ioctl(fd, _FSSETXATTR, bytearray(struct.pack(_FSXATTR, wanted, extent, extents, project)))


def usage(path: Path, project: int) -> Usage:
    try:
        found = struct.unpack_from(_DQBLK, _quotactl(path, _GETQUOTA, project, bytes(struct.calcsize(_DQBLK))))
    except OSError as error:
        if error.errno == errno.ENOENT:  # XFS: nothing was ever in it
            return Usage(0, 0, 0, 0)
        raise
    return Usage(found[2], found[0] * 1024, found[5], found[3])


def set_limits(path: Path, project: int, *, size: int, inodes: int) -> None:
    """Limits the bytes and inodes of a project; 0 for no limit."""
    blocks = -(-size // 1024)
    _quotactl(path, _SETQUOTA, project, struct.pack(_DQBLK, blocks, 0, 0, inodes, 0, 0, 0, 0, _LIMITS_VALID))


def _attributes(fd: int) -> tuple[int, int, int, int]:
    buffer = bytearray(struct.calcsize(_FSXATTR))
    fcntl.ioctl(fd, _FSGETXATTR, buffer)
    flags, extent, extents, project = struct.unpack_from(_FSXATTR, buffer)
    return flags, extent, extents, project


def _quotactl(path: Path, command: int, number: int, data: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(data, len(data))
    with directory(path) as fd:
        arguments = (ctypes.c_uint(command << 8 | _PROJECT_QUOTA), ctypes.c_uint(number), ctypes.byref(buffer))
        if _libc.syscall(ctypes.c_long(_QUOTACTL_FD), ctypes.c_uint(fd), *arguments) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    return buffer.raw
