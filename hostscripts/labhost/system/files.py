"""Files that only root can reach: read with a bound, written whole or not at all."""

import os
from pathlib import Path

from labhost.errors import LabhostError


def read_text(path: Path, limit: int = 1 << 20) -> str | None:
    """The text of a file, None if there is none; LabhostError when it is longer than `limit` bytes."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(limit + 1)
    except FileNotFoundError:
        return None
    if len(data) > limit:
        raise LabhostError(f"{path} is longer than {limit} bytes; look at it by hand")
    return data.decode("utf-8", "surrogateescape")


def write_atomic(path: Path, text: str, *, mode: int, durable: bool = True) -> bool:
    """Replaces `path` by a file of root's with this text. False if it was so already (nothing is written).

    Unless it is `durable`, a power cut in the next seconds may bring the old file back, whole.
    """
    data = text.encode("utf-8", "surrogateescape")
    if _is_already(path, data, mode):
        return False
    temporary = path.with_name(f".{path.name}.lab-iam-new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            write_all(fd, data)
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)
    return True


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def remove_tree(path: Path) -> None:
    """Removes a tree that only root can reach; what cannot be removed stays."""
    import shutil  # rarely needed, and every start of labhost would wait for it

    shutil.rmtree(path, ignore_errors=True)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_already(path: Path, data: bytes, mode: int) -> bool:
    try:
        status = os.lstat(path)
        if status.st_size != len(data) or status.st_mode != (0o100000 | mode) or status.st_uid != os.geteuid():
            return False
        return path.read_bytes() == data
    except FileNotFoundError:
        return False
