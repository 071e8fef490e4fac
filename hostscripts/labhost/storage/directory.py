"""Storage `dir`: a copy of the template for each person, unpacked inside her id map, then renamed."""

import os
import secrets
from pathlib import Path

from .. import lxc, template
from ..config import Host
from ..errors import LabhostError
from ..files import sync_directory
from ..run import Account, finish, run, spawn
from ..state import User

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
    def __init__(self, host: Host) -> None:
        self._host = host

    def rootfs(self, user: User) -> Path:
        return self._folder(user) / "rootfs"

    def create(self, user: User, account: Account) -> None:
        if self.rootfs(user).is_dir():
            return
        self._folder(user).mkdir(mode=0o755, exist_ok=True)
        self.remove_leftovers(user, account)
        fresh = self._folder(user) / f"rootfs.new-{secrets.token_hex(6)}"
        fresh.mkdir(mode=0o755)
        try:
            os.chown(fresh, user.subuid, user.subuid, follow_symlinks=False)
            self._unpack(user, account, fresh)
            os.rename(fresh, self.rootfs(user))
        except BaseException:
            self._remove(user, account, fresh)
            raise
        sync_directory(self._folder(user))

    def remove_leftovers(self, user: User, account: Account) -> None:
        for path in self._folder(user).glob("rootfs.new-*"):
            self._remove(user, account, path)

    def _folder(self, user: User) -> Path:
        return lxc.folder(self._host, user.name) / user.name

    def _unpack(self, user: User, account: Account, fresh: Path) -> None:
        with open(self._host.config.template, "rb") as archive:
            reader = spawn(template.decompressor(archive), account=account, stdin=archive)
            words = lxc.in_map(account, user.subuid, ["/bin/sh", "-c", _UNPACK, "sh", str(fresh)])
            assert reader.stdout is not None
            unpacked = run(words, timeout=UNPACK_SECONDS, account=account, stdin=reader.stdout)
            read = finish(reader, ["the decompressor"], timeout=10)
        if b"No space left" in unpacked.err or b"Disk quota" in unpacked.err:
            raise LabhostError("the disk is full; ask the lab's staff to make room")
        read.check("the template cannot be read; ask the lab's staff to build it again")
        unpacked.check("the template cannot be unpacked")
        template.check_tree(fresh)

    def _remove(self, user: User, account: Account, path: Path) -> None:
        """Empties the tree inside the person's map: root itself walks through nothing there."""
        inside = lxc.in_map(account, user.subuid, ["/usr/bin/find", str(path), "-mindepth", "1", "-delete"])
        run(inside, timeout=UNPACK_SECONDS, account=account)
        try:
            path.rmdir()
        except OSError as error:
            raise LabhostError(f"{path} cannot be removed: {error.strerror}") from error
