"""The newest revision, for when the database of applied keys cannot be written: a later push that is older is refused.

The file has a fixed size and is overwritten in place, which needs no room on a full disk.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from labhost.errors import LabhostError
from labhost.host import Host
from labhost.system import files, openat2

SIZE = 160
_TEXT = re.compile(r"([0-9]{20}) ([0-9a-f]{0,64}) ([0-9a-f]{0,32}) ([0-9a-f]{0,32}) *\n", re.ASCII)


class Note(NamedTuple):
    """A push that the database could not note: revision, digest and id, and the id that it replaced."""

    revision: int = 0
    digest: str = ""
    id: str = ""
    previous: str = ""

    def follows(self, revision: int, id_: str) -> bool:
        """Whether it came after this state, which is in the database."""
        return self.previous == id_ and (self.id != id_ or self.revision > revision)


def path_of(host: Host) -> Path:
    return host.paths.state / "keys.sqlite3-revision"


def prepare(host: Host) -> None:
    """Take the room for it while there is some."""
    if not path_of(host).exists():
        with suppress(OSError):
            files.write_atomic(path_of(host), _text(Note()), mode=0o600)


def read(host: Host) -> Note:
    with suppress(OSError, LabhostError):
        match = _TEXT.fullmatch(files.read_text(path_of(host), SIZE) or "")
        if match is not None:
            return Note(int(match[1]), *match.group(2, 3, 4))
    return Note()


def write(host: Host, note: Note) -> None:
    """OSError if it cannot be noted."""
    with openat2.closing(os.open(path_of(host), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
        os.pwrite(fd, _text(note).encode("ascii"), 0)
        os.fsync(fd)


def _text(note: Note) -> str:
    return f"{note.revision:020d} {note.digest} {note.id} {note.previous}".ljust(SIZE - 1) + "\n"
