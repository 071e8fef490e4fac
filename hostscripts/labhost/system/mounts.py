"""Mounts that mount(8) of supported systems cannot make: idmapped views, and overlays on them. Linux >= 5.19.

See mount_setattr(2) and https://docs.kernel.org/filesystems/overlayfs.html. Paths are root's own and contain
neither commas nor colons.
"""

import ctypes
import errno
import os
import time
from pathlib import Path

from labhost.system import user_namespaces
from labhost.system.openat2 import closing

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # the same on every architecture
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_ATTR_RDONLY, _ATTR_NODEV, _ATTR_IDMAP = 0x1, 0x4, 0x100000
_MS_NODEV = 4
_UMOUNT_NOFOLLOW = 8
_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP = 28, 4
BUSY_SECONDS = 5.0
_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def idmapped(source: Path, target: Path, first: int, count: int) -> None:
    """Mounts `source` read-only at `target`, its ids 0..count-1 shown as first..first+count-1; OSError."""
    cloned = ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC)
    with closing(_syscall(_OPEN_TREE, ctypes.c_int(_AT_FDCWD), os.fsencode(source), cloned)) as tree:
        with closing(user_namespaces.create(first, count)) as namespace:
            wanted = _MountAttr(_ATTR_RDONLY | _ATTR_NODEV | _ATTR_IDMAP, 0, 0, namespace)
            size = ctypes.c_size_t(ctypes.sizeof(wanted))
            _syscall(_MOUNT_SETATTR, ctypes.c_int(tree), b"", ctypes.c_uint(_AT_EMPTY_PATH), ctypes.byref(wanted), size)
        flags = ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
        _syscall(_MOVE_MOUNT, ctypes.c_int(tree), b"", ctypes.c_int(_AT_FDCWD), os.fsencode(target), flags)


def overlay(target: Path, *, lower: Path, upper: Path, work: Path, owner: int) -> None:
    """Mounts an overlay; OSError. `userxattr`: its marks are attributes that the owner of `upper` can archive.

    The kernel writes to `upper` with the credentials of who mounts. A child mounts as `owner` (a uid and gid, not 0),
    so that the container cannot use the blocks that file systems reserve for root. It keeps root's capabilities for
    files of the container's other ids; the kernel itself drops CAP_SYS_RESOURCE, which would lift reserve and quotas.
    """
    options = f"lowerdir={lower},upperdir={upper},workdir={work},userxattr,index=off"
    child = os.fork()
    if child == 0:
        failed = errno.EPERM
        try:
            _check(_libc.prctl(_PR_SET_SECUREBITS, ctypes.c_ulong(_SECBIT_NO_SETUID_FIXUP), 0, 0, 0))
            _libc.setfsgid(owner)
            _libc.setfsuid(owner)
            _check(
                _libc.mount(b"overlay", os.fsencode(target), b"overlay", ctypes.c_ulong(_MS_NODEV), options.encode())
            )
            failed = 0
        except OSError as error:
            failed = error.errno or failed
        finally:
            os._exit(failed)
    if failed := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(failed, os.strerror(failed))


def unmount(target: Path) -> None:
    """Unmounts `target` if something is mounted there; waits a little for processes that are just ending. OSError."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            _check(_libc.umount2(os.fsencode(target), _UMOUNT_NOFOLLOW))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # not a mount point
                return
            if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def is_mounted(target: Path) -> bool:
    """True if `target` is the root of another file system, as an overlay always is (an idmapped view is not)."""
    try:
        return os.lstat(target).st_dev != os.lstat(target.parent).st_dev
    except FileNotFoundError:
        return False


def _syscall(number: int, *arguments: object) -> int:
    return _check(_libc.syscall(ctypes.c_long(number), *arguments))


def _check(code: int) -> int:
    if code < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return code
