"""Reading and writing below a directory that an enemy controls (the root file system of a container).

Every step starts at a descriptor of root's and resolves with openat2(2), so the kernel refuses symbolic links, `..`
and other mounts. Existing files are replaced by rename, never opened for writing.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from labhost.errors import LabhostError

_SYS_OPENAT2 = 437
NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT = 0x01, 0x02, 0x04, 0x08, 0x10
STRICT = BENEATH | NO_SYMLINKS | NO_MAGICLINKS | NO_XDEV
_INSIDE = IN_ROOT | NO_MAGICLINKS | NO_XDEV
_TEMPORARY = ".{}.lab-iam-new"
_PROBLEMS = {
    errno.ELOOP: "is a symbolic link or leads through one",
    errno.ENOTDIR: "is not a directory",
    errno.ENXIO: "is not a directory",
    errno.ENOENT: "does not exist",
    errno.EXDEV: "leads to another file system",
}
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_at(directory: int, path: str, flags: int, resolve: int = STRICT) -> int:
    """A new descriptor, see openat2(2); OSError. Paths may have several parts."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    for _ in range(64):
        place = (ctypes.c_int(directory), ctypes.c_char_p(os.fsencode(path)))
        fd = _libc.syscall(ctypes.c_long(_SYS_OPENAT2), *place, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):  # EAGAIN: part of the path is being renamed
            raise OSError(code, os.strerror(code), path)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """The descriptor, closed at the end."""
    try:
        yield fd
    finally:
        os.close(fd)


def directory(path: Path) -> AbstractContextManager[int]:
    """A descriptor of a directory whose parents only root can write; the last part must not be a symbolic link."""
    return closing(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))


def subdirectory(parent: int, path: str, resolve: int = STRICT) -> AbstractContextManager[int]:
    """A descriptor of a directory below `parent`; LabhostError if any part of the path is not a directory."""
    try:
        return closing(open_at(parent, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK, resolve))
    except OSError as error:
        problem = _PROBLEMS.get(error.errno or 0) or error.strerror or "cannot be opened"
        raise LabhostError(f"{path} {problem}", reason="not_a_directory", path=path, problem=problem) from error


def make_directory(parent: int, name: str, *, owner: tuple[int, int], mode: int) -> bool:
    """Creates `name`; False if it exists. The owner changes only while the directory is still root's own."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return False
    with subdirectory(parent, name) as fd:
        status = os.fstat(fd)
        if status.st_uid == os.geteuid():
            os.fchmod(fd, mode)
            os.fchown(fd, *owner)
    return True


def replace_file(parent: int, name: str, text: str, *, owner: tuple[int, int], mode: int, durable: bool = True) -> bool:
    """Replaces `name` by a file with this text, owner and mode; False if nothing had to change. OSError."""
    if not stage_file(parent, name, text, owner=owner, mode=mode, durable=True):
        return False
    commit_staged(parent, name)
    if durable:
        os.fsync(parent)
    return True


def stage_file(parent: int, name: str, text: str, *, owner: tuple[int, int], mode: int, durable: bool) -> bool:
    """Writes the new file beside `name`, for commit_staged; False if nothing has to change. OSError.

    Without `durable` the caller must bring the data to the disk before commit_staged.
    """
    if matches(parent, name, text, owner=owner, mode=mode):
        return False
    temporary = _TEMPORARY.format(name.lstrip("."))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, 0o600, dir_fd=parent)
    except FileExistsError:  # left by a killed run
        os.unlink(temporary, dir_fd=parent)
        fd = os.open(temporary, flags, 0o600, dir_fd=parent)
    try:
        with open(fd, "wb") as stream:
            stream.write(_encode(text))
            stream.flush()
            os.fchmod(fd, mode)
            os.fchown(fd, *owner)
            if durable:
                os.fsync(fd)
    except OSError:
        discard_staged(parent, name)
        raise
    return True


def commit_staged(parent: int, name: str) -> None:
    """Renames the staged file to `name`. After an OSError the staged file is gone."""
    try:
        os.rename(_TEMPORARY.format(name.lstrip(".")), name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError:
        discard_staged(parent, name)
        raise


def discard_staged(parent: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(_TEMPORARY.format(name.lstrip(".")), dir_fd=parent)


def sync_file_system(fd: int) -> None:
    """Brings everything on the file system of `fd` to the disk, see syncfs(2); OSError."""
    if _libc.syncfs(ctypes.c_int(fd)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def matches(parent: int, name: str, text: str, *, owner: tuple[int, int], mode: int) -> bool:
    """True if `replace_file` would change nothing. Never blocks (FIFOs, file leases); reads only what has the size."""
    data = _encode(text)
    try:
        with closing(open_at(parent, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)) as fd:
            status = os.fstat(fd)
            same = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size == len(data)
            same = same and (status.st_uid, status.st_gid) == owner and stat.S_IMODE(status.st_mode) == mode
            return same and os.read(fd, len(data) + 1) == data
    except OSError:
        return False


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # as files.read_text decodes


def link_target(root: int, path: str) -> str | None:
    """The target of the symbolic link `path`, its parents resolved as for a process chrooted into `root`."""
    folder, _, name = path.rpartition("/")
    try:
        with closing(open_at(root, folder or ".", os.O_PATH | os.O_DIRECTORY, _INSIDE)) as fd:
            return os.readlink(name, dir_fd=fd)
    except OSError:
        return None


def is_file(root: int, path: str) -> bool:
    """True if `path`, resolved inside `root`, is a regular file. Only the path is opened (O_PATH)."""
    try:
        with closing(open_at(root, path, os.O_PATH, _INSIDE)) as fd:
            return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False
