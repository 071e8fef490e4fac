"""Takes lines out of a key file without needing room: for full disks, spent quotas, and hostile owners of the folder.

Each line that is not wanted gets a `#` as its first byte, in place. So no block or inode is needed, a kill leaves each
line whole or struck out, and the other keys in the file go on working. Where that cannot be done (copy on write, a hard
link, a FIFO), the file is unlinked.
"""

import os
import stat

from labhost.system import openat2

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def take_away(parent: int, name: str, wanted: str, most: int) -> bool:
    """Leave no line in the file `name` that is not in `wanted`; True if all lines of `wanted` are there. OSError.

    A file of more than `most` bytes is removed.
    """
    lines = set(wanted.encode().splitlines())
    try:
        with openat2.closing(openat2.open_at(parent, name, os.O_RDONLY | _FLAGS)) as fd:
            found, unwanted = _read(fd, lines, most)
        if unwanted:
            with openat2.closing(openat2.open_at(parent, name, os.O_RDWR | _FLAGS)) as fd:
                found, unwanted = _read(fd, lines, most)  # once more: another file may have this name now
                for offset in unwanted:
                    os.pwrite(fd, b"#", offset)
                os.fsync(fd)
    except FileNotFoundError:
        return not lines
    except OSError:
        _unlink(parent, name)
        return not lines
    return lines <= found


def _read(fd: int, lines: set[bytes], most: int) -> tuple[set[bytes], list[int]]:
    """Which of `lines` the file has, and where the others begin. OSError if it cannot be changed in place."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_size > most:
        raise OSError("not a small file of its own")
    found: set[bytes] = set()
    unwanted: list[int] = []
    offset = 0
    for line in _content(fd, most).split(b"\n"):
        if line in lines:
            found.add(line)
        elif line.strip() and not line.startswith(b"#"):
            unwanted.append(offset)
        offset += len(line) + 1
    return found, unwanted


def _content(fd: int, most: int) -> bytes:
    data = bytearray()
    while len(data) <= most and (piece := os.read(fd, 1 << 20)):
        data += piece
    return bytes(data)


def _unlink(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
        os.fsync(parent)
    except OSError:
        # An overlay needs an inode to hide a file of the template, but none to empty it.
        with openat2.closing(openat2.open_at(parent, name, os.O_WRONLY | _FLAGS)) as fd:
            if os.fstat(fd).st_nlink != 1:
                raise
            os.ftruncate(fd, 0)
            os.fsync(fd)
