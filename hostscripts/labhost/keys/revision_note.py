"""The newest revision, for when the database of applied keys cannot be written: a later push that is older is refused.

The file has a fixed size and is overwritten in place, which needs no room on a full disk.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from labhost.errors import LabhostError
from labhost.host import Host
from labhost.system import files, openat2

SIZE = 96
_TEXT = re.compile(r"([0-9]{20}) ([0-9a-f]{0,64}) *\n", re.ASCII)


def path_of(host: Host) -> Path:
    return host.paths.state / "keys.sqlite3-revision"


def prepare(host: Host) -> None:
    """Take the room for it while there is some."""
    if not path_of(host).exists():
        with suppress(OSError):
            files.write_atomic(path_of(host), _text(0, ""), mode=0o600)


def read(host: Host) -> tuple[int, str]:
    """Revision and digest; 0 and "" if none was noted."""
    with suppress(OSError, LabhostError):
        match = _TEXT.fullmatch(files.read_text(path_of(host), SIZE) or "")
        if match is not None:
            return int(match[1]), match[2]
    return 0, ""


def write(host: Host, revision: int, digest: str) -> None:
    """OSError if it cannot be noted."""
    with openat2.closing(os.open(path_of(host), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
        os.pwrite(fd, _text(revision, digest).encode("ascii"), 0)
        os.fsync(fd)


def _text(revision: int, digest: str) -> str:
    return f"{revision:020d} {digest}".ljust(SIZE - 1) + "\n"
