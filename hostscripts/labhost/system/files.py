"""Files in folders that only root can write: read up to a limit, replaced whole or not at all."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from labhost.errors import LabhostError
from labhost.system import openat2

PIECE = 1 << 16  # bytes


def read_text(path: Path, limit: int = 1 << 20) -> str | None:
    """The text of a file, None if there is no file; LabhostError if it is longer than `limit` bytes."""
    try:
        with open(path, "rb") as stream:
            data = bytearray()  # in pieces: a read takes the memory of its limit, however short the file is
            while len(data) <= limit and (piece := stream.read(min(PIECE, limit + 1 - len(data)))):
                data += piece
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
    with openat2.closing(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as parent:
        owner = (os.geteuid(), os.getegid())
        return openat2.replace_file(parent, path.name, text, owner=owner, mode=mode, durable=durable)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sha256_of(stream: IO[bytes]) -> str:
    """In hex, of all that follows in the stream (hashlib.file_digest needs Python 3.11)."""
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def remove_tree(path: Path) -> None:
    """Removes a tree that only root can write; what cannot be removed stays."""
    import shutil  # rarely needed, and slow to import

    with suppress(RecursionError):  # a tree of more than a thousand levels
        shutil.rmtree(path, ignore_errors=True)


def sync_directory(path: Path) -> None:
    with openat2.closing(os.open(path, os.O_RDONLY | os.O_DIRECTORY)) as fd:
        os.fsync(fd)
