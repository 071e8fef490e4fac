"""Storage `dir`: a copy of the template for each person, unpacked inside her id map, then renamed."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from labhost import lxc
from labhost.errors import LabhostError
from labhost.host import locks
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.storage import template_archive, tree
from labhost.storage.slots import Slots, slots_in
from labhost.system.processes import Account, Process, finish, run, spawn

UNPACK_SECONDS = 900
_UNPACK = """
set -eu
cd "$1"
tar --extract --file=- --preserve-permissions --numeric-owner --xattrs --xattrs-include='*' \
  --warning=no-unknown-keyword --anchored --exclude='./dev/*' --exclude='dev/*' \
  --exclude='./etc/ssh/ssh_host_*' --exclude='etc/ssh/ssh_host_*' --exclude='./etc/machine-id' \
  --exclude='etc/machine-id' --exclude='./var/lib/dbus/machine-id' --exclude='var/lib/dbus/machine-id'
# An empty machine-id is filled at the first boot, and does not count as a first boot with questions.
if [ -d etc ]; then : > etc/machine-id; fi
"""


class DirectoryStorage:
    name = "dir"

    def __init__(self, host: Host) -> None:
        self._host = host

    def rootfs(self, user: User) -> Path:
        return self._folder(user) / "rootfs"

    def exists(self, user: User) -> bool:
        return self._slots(user).exists()

    def check(self) -> None:
        tree.check_free_space(self._host.paths.home, template_archive.inspect(self._host).size)

    def create(self, user: User, account: Account) -> None:
        if self.exists(user):
            return self.attach(user, account)
        self._folder(user).mkdir(mode=0o755, exist_ok=True)
        self.remove_leftovers(user, account)
        return self.put(user, account, self.fresh(user, account))

    def attach(self, user: User, account: Account) -> None:
        with locks.hold(self._host, locks.mount_lock(user.name), seconds=30, doing="files are being attached"):
            self._slots(user).repair()

    def detach(self, user: User, account: Account) -> None:
        """Nothing is mounted."""

    def fresh(self, user: User, account: Account) -> Path:
        return self._made(user, account, lambda into: self._from_template(user, account, into))

    def unpack(self, user: User, account: Account, stream: IO[bytes], template: str) -> Path:
        return self._made(user, account, lambda into: tree.unpack(account, user.subuid, stream, into))

    def put(self, user: User, account: Account, system: Path) -> None:
        self._slots(user).install(system)

    def settle(self, user: User, account: Account) -> None:
        self._slots(user).discard_previous()
        self.remove_leftovers(user, account)

    def revert(self, user: User, account: Account) -> bool:
        return self._slots(user).roll_back()

    def version(self, user: User) -> str:
        return ""

    def size(self, user: User, account: Account) -> int:
        return tree.size(account, user.subuid, self.rootfs(user))

    def archive(self, user: User, account: Account) -> Process:
        return tree.archive(account, user.subuid, self.rootfs(user))

    def remove(self, user: User, account: Account) -> None:
        for path in self._slots(user).all():
            tree.remove(account, user.subuid, path)

    def remove_leftovers(self, user: User, account: Account) -> None:
        for path in self._slots(user).leftovers():
            tree.remove(account, user.subuid, path)

    def _folder(self, user: User) -> Path:
        return lxc.container_folder(self._host, user.name)

    def _slots(self, user: User) -> Slots:
        return slots_in(self._folder(user), "rootfs")

    def _made(self, user: User, account: Account, fill: Callable[[Path], None]) -> Path:
        fresh = self._slots(user).new_path()
        fresh.mkdir(mode=0o755)
        try:
            os.chown(fresh, user.subuid, user.subuid, follow_symlinks=False)
            fill(fresh)
            template_archive.check_bootable(fresh)
        except BaseException:
            with suppress(LabhostError):
                tree.remove(account, user.subuid, fresh)
            raise
        return fresh

    def _from_template(self, user: User, account: Account, fresh: Path) -> None:
        with open(self._host.config.container.template, "rb") as archive:
            reader = spawn(template_archive.decompressor(archive), account=account, stdin=archive)
            words = lxc.in_id_map(account, user.subuid, ["/bin/sh", "-c", _UNPACK, "sh", str(fresh)])
            assert reader.stdout is not None
            unpacked = run(words, timeout=UNPACK_SECONDS, account=account, stdin=reader.stdout)
            read = finish(reader, ["the decompressor"], timeout=10)
        tree.check_disk_full(unpacked)
        read.check("the template cannot be read; ask the lab's staff to build it again")
        unpacked.check("the template cannot be unpacked")
