"""Storage `dir`: a copy of the template for each person, unpacked inside their id map, then renamed."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from labhost.errors import LabhostError
from labhost.host import User, locks
from labhost.storage import quota, template_archive, tree
from labhost.storage.driver import Storage
from labhost.system import Account


class DirectoryStorage(Storage):
    name = "dir"
    slot = "rootfs"

    def check(self) -> None:
        tree.check_free_space(self._host.paths.home, template_archive.inspect(self._host).size)

    def attach(self, user: User, account: Account) -> None:
        quota.attach(self._host, user)
        with locks.mounts(self._host, user.name):
            self._slots(user).repair()

    def detach(self, user: User, account: Account) -> None:
        """Nothing is mounted."""

    def create_fresh(self, user: User, account: Account) -> Path:
        return self._create(user, account, lambda path: template_archive.unpack(self._host, path, subuid=user.subuid))

    def unpack(self, user: User, account: Account, archive: tree.Archive, template: str) -> Path:
        return self._create(user, account, lambda path: tree.unpack(user.subuid, archive, path))

    def install(self, user: User, account: Account, system: Path) -> None:
        self._slots(user).install(system)

    def roll_back(self, user: User, account: Account) -> bool:
        return self._slots(user).roll_back()

    def version(self, user: User) -> str:
        return ""

    def _own_files(self, user: User) -> Path:
        return self.rootfs(user)

    def _remove(self, user: User, account: Account, system: Path) -> None:
        tree.remove(user.subuid, system)

    def _create(self, user: User, account: Account, fill: Callable[[Path], None]) -> Path:
        fresh = self._slots(user).new_path()
        fresh.mkdir(mode=0o755)
        try:
            quota.cover(self._host, user, fresh)
            os.chown(fresh, user.subuid, user.subuid, follow_symlinks=False)
            fill(fresh)
            template_archive.check_bootable(fresh)
        except BaseException:
            with suppress(LabhostError):
                self._remove(user, account, fresh)
            raise
        return fresh
