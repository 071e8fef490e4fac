"""The systems of one person as folders side by side: the current one, the previous one, and new ones."""

import os
from functools import lru_cache
from pathlib import Path

from labhost.host.user_state import PATH_CACHE_SIZE
from labhost.system import failpoints
from labhost.system.files import sync_directory


class Slots:
    """`folder` is root's own; a slot is a name in it, and every change is a rename."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.current = folder / name
        self.previous = folder / f"{name}.old"

    def new_path(self) -> Path:
        """A path for a system that is being made; a leftover until `install`."""
        return self.folder / f"{self.name}.new-{os.urandom(6).hex()}"

    def exists(self) -> bool:
        return os.path.isdir(self.current) or os.path.isdir(self.previous)  # called for everybody in each full push

    def repair(self) -> None:
        """Undoes an `install` that was killed between its two renames."""
        if not self.current.is_dir() and self.previous.is_dir():
            self._rename(self.previous, self.current)

    def install(self, fresh: Path) -> None:
        """Makes `fresh` the current system. The one before becomes the previous one, unless it never started."""
        if self.current.is_dir():
            self._rename(self.current, self._leftover_path() if self.previous.is_dir() else self.previous)
            failpoints.hit("slot-empty")
        self._rename(fresh, self.current)

    def roll_back(self) -> bool:
        if not self.previous.is_dir():
            return False
        if self.current.is_dir():
            self._rename(self.current, self._leftover_path())
        self._rename(self.previous, self.current)
        return True

    def discard_previous(self) -> None:
        """Makes the previous system a leftover."""
        if self.current.is_dir() and self.previous.is_dir():
            self._rename(self.previous, self._leftover_path())

    def leftovers(self) -> list[Path]:
        return [*self.folder.glob(f"{self.name}.new-*"), *self.folder.glob(f"{self.name}.dead-*")]

    def all(self) -> list[Path]:
        return [path for path in (self.current, self.previous, *self.leftovers()) if path.is_dir()]

    def _leftover_path(self) -> Path:
        return self.folder / f"{self.name}.dead-{os.urandom(6).hex()}"

    def _rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)
        sync_directory(self.folder)


@lru_cache(maxsize=PATH_CACHE_SIZE)
def slots_in(folder: Path, name: str) -> Slots:
    return Slots(folder, name)
