"""Files in folders that only root can write: read up to a limit, replaced whole or not at all."""

import os
from pathlib import Path

from labhost.errors import LabhostError
from labhost.system import openat2


def read_text(path: Path, limit: int = 1 << 20) -> str | None:
    """The text of a file, None if there is no file; LabhostError if it is longer than `limit` bytes."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(limit + 1)
    except FileNotFoundError:
        return None
    if len(data) > limit:
        message = f"{path} is longer than {limit} bytes; inspect it by hand"
        raise LabhostError(message, reason="file_too_long", path=str(path), limit=limit)
    return data.decode("utf-8", "surrogateescape")


def write_atomic(path: Path, text: str, *, mode: int, durable: bool = True) -> bool:
    """Replaces `path` by a file of root's with this text. Returns False if nothing had to change.

    Without `durable` a power cut in the next seconds may bring back the old file, whole.
    """
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        owner = (os.geteuid(), os.getegid())
        if not openat2.stage_file(parent, path.name, text, owner=owner, mode=mode, durable=True):
            return False
        openat2.commit_staged(parent, path.name)
        if durable:
            os.fsync(parent)
        return True
    finally:
        os.close(parent)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def remove_tree(path: Path) -> None:
    """Removes a tree that only root can write; what cannot be removed stays."""
    import shutil  # rarely needed, and slow to import

    shutil.rmtree(path, ignore_errors=True)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
