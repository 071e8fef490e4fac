"""The systems of one person as names in her folder: the current one, the one before, and what is being made."""

import os
from functools import lru_cache
from pathlib import Path

from labhost.host.user_state import PATH_CACHE_SIZE
from labhost.system import failpoints
from labhost.system.files import sync_directory


class Slots:
    """`folder` is root's own; a slot is a name in it, and everything that happens to one is a rename."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.current = folder / name
        self.old = folder / f"{name}.old"

    def fresh(self) -> Path:
        """A name for a system in the making; it is nobody's until `put`."""
        return self.folder / f"{self.name}.new-{os.urandom(6).hex()}"

    def exists(self) -> bool:
        return os.path.isdir(self.current) or os.path.isdir(self.old)  # asked for everybody at each push of everybody

    def heal(self) -> None:
        """A kill came between the two renames of `put`: the system before is the current one again."""
        if not self.current.is_dir() and self.old.is_dir():
            self._rename(self.old, self.current)

    def put(self, fresh: Path) -> None:
        """`fresh` is the current system. The one before is kept, unless it never started: then its own one before."""
        if self.current.is_dir():
            self._rename(self.current, self._dead() if self.old.is_dir() else self.old)
            failpoints.hit("slot-empty")
        self._rename(fresh, self.current)

    def revert(self) -> bool:
        if not self.old.is_dir():
            return False
        if self.current.is_dir():
            self._rename(self.current, self._dead())
        self._rename(self.old, self.current)
        return True

    def retire(self) -> None:
        """The one before is no longer needed; `leftovers` names it from now on."""
        if self.current.is_dir() and self.old.is_dir():
            self._rename(self.old, self._dead())

    def leftovers(self) -> list[Path]:
        return [*self.folder.glob(f"{self.name}.new-*"), *self.folder.glob(f"{self.name}.dead-*")]

    def all(self) -> list[Path]:
        return [path for path in (self.current, self.old, *self.leftovers()) if path.is_dir()]

    def _dead(self) -> Path:
        return self.folder / f"{self.name}.dead-{os.urandom(6).hex()}"

    def _rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)
        sync_directory(self.folder)


@lru_cache(maxsize=PATH_CACHE_SIZE)
def slots_in(folder: Path, name: str) -> Slots:
    return Slots(folder, name)
