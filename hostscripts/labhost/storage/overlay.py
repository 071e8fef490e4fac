"""Storage `overlay`: the unpacked template, seen through the person's id map, under a layer of her own.

A slot holds `upper` (hers), `work` (the kernel's) and `template` (the version below). It is only renamed while
it is not mounted, so what is mounted is always the current one.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from labhost import lxc
from labhost.accounts import tombstones
from labhost.errors import LabhostError, Refused
from labhost.host import locks, user_state
from labhost.host.config import SUBUID_COUNT, Host
from labhost.host.user_state import User
from labhost.storage import template_archive, templates, tree
from labhost.storage.slots import Slots, slots_in
from labhost.system import failpoints, files, mounts
from labhost.system.processes import Account, Process


class OverlayStorage:
    name = "overlay"

    def __init__(self, host: Host) -> None:
        self._host = host

    def rootfs(self, user: User) -> Path:
        return self._folder(user) / "rootfs"

    def exists(self, user: User) -> bool:
        return self._slots(user).exists()

    def check(self) -> None:
        facts = template_archive.inspect(self._host)
        there = templates.rootfs(self._host, facts.version).is_dir()
        tree.check_free_space(self._host.paths.state, 0 if there else facts.size)
        tree.check_free_space(self._host.paths.home, 0)

    def create(self, user: User, account: Account) -> None:
        if not self.exists(user):
            self._folder(user).mkdir(mode=0o755, exist_ok=True)
            self.remove_leftovers(user, account)
            self._slots(user).install(self._layer(user))
        self.attach(user, account)

    def attach(self, user: User, account: Account) -> None:
        with locks.hold(self._host, locks.mount_lock(user.name), seconds=30, doing="files are being attached"):
            slots = self._slots(user)
            if mounts.is_mounted(self.rootfs(user)):
                return
            slots.repair()
            self.rootfs(user).mkdir(mode=0o755, exist_ok=True)
            self._mount(user, slots.current, self.rootfs(user))

    def detach(self, user: User, account: Account) -> None:
        with locks.hold(self._host, locks.mount_lock(user.name), seconds=30, doing="files are being attached"):
            try:
                mounts.unmount(self.rootfs(user))
            except OSError as error:
                raise LabhostError(f"{self.rootfs(user)} is in use: {error.strerror}; try again") from error

    def fresh(self, user: User, account: Account) -> Path:
        return self._layer(user)

    def unpack(self, user: User, account: Account, stream: IO[bytes], template: str) -> Path:
        if not templates.rootfs(self._host, template).is_dir():
            raise Refused(f"this snapshot needs the template {template}, which is not on this server any more")
        layer = self._layer(user, template)
        try:
            tree.unpack(account, user.subuid, stream, layer / "upper")
            self._try(user, layer)
        except BaseException:
            with suppress(LabhostError):
                self._remove(user, account, layer)
            raise
        return layer

    def put(self, user: User, account: Account, system: Path) -> None:
        self.detach(user, account)
        failpoints.hit("detached")
        self._slots(user).install(system)
        failpoints.hit("swapped")
        self.attach(user, account)

    def settle(self, user: User, account: Account) -> None:
        self._slots(user).discard_previous()
        self.remove_leftovers(user, account)

    def revert(self, user: User, account: Account) -> bool:
        self.detach(user, account)
        found = self._slots(user).roll_back()
        self.attach(user, account)
        return found

    def version(self, user: User) -> str:
        """The template's version below the current system."""
        return (files.read_text(self._slots(user).current / "template", 64) or "").strip()

    def size(self, user: User, account: Account) -> int:
        return tree.size(account, user.subuid, self._slots(user).current / "upper")

    def archive(self, user: User, account: Account) -> Process:
        return tree.archive(account, user.subuid, self._slots(user).current / "upper")

    def remove(self, user: User, account: Account) -> None:
        self.detach(user, account)
        for path in self._slots(user).all():
            self._remove(user, account, path)
        with suppress(FileNotFoundError):
            self.rootfs(user).rmdir()

    def remove_leftovers(self, user: User, account: Account) -> None:
        for path in self._slots(user).leftovers():
            self._remove(user, account, path)

    def _folder(self, user: User) -> Path:
        return lxc.container_folder(self._host, user.name)

    def _slots(self, user: User) -> Slots:
        return slots_in(self._folder(user), "layer")

    def _layer(self, user: User, version: str = "") -> Path:
        """An empty layer over the template of that version, or over the current one."""
        with locks.hold(self._host, locks.TEMPLATES, seconds=900, doing="the template is being unpacked"):
            version = version or templates.unpack(self._host)
            fresh = self._slots(user).new_path()
            fresh.mkdir(mode=0o755)
            files.write_atomic(fresh / "template", version + "\n", mode=0o644)
        (fresh / "work").mkdir(mode=0o700)
        (fresh / "upper").mkdir(mode=0o755)
        os.chown(fresh / "upper", user.subuid, user.subuid)
        return fresh

    def _try(self, user: User, layer: Path) -> None:
        """LabhostError if this layer could not boot."""
        shown = layer / "rootfs"
        shown.mkdir()
        self._mount(user, layer, shown)
        try:
            template_archive.check_bootable(shown)
        finally:
            mounts.unmount(shown)
            shown.rmdir()

    def _mount(self, user: User, layer: Path, target: Path) -> None:
        version = (files.read_text(layer / "template", 64) or "").strip()
        below = templates.rootfs(self._host, version)
        if not version or not below.is_dir():
            raise LabhostError(f"the template {version or 'of this system'} is missing; ask the lab's staff")
        view = self._host.paths.state / "mounts" / user.name
        view.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            mounts.unmount(view)  # a kill left it
            mounts.idmapped(below, view, user.subuid, SUBUID_COUNT)
            mounts.overlay(target, lower=view, upper=layer / "upper", work=layer / "work")
            mounts.unmount(view)  # the overlay has a copy of its own
        except OSError as error:
            raise LabhostError(f"the files of {user.name} cannot be mounted: {error.strerror}") from error

    def _remove(self, user: User, account: Account, layer: Path) -> None:
        with suppress(OSError):
            mounts.unmount(layer / "rootfs")
        if (layer / "upper").is_dir():
            tree.remove(account, user.subuid, layer / "upper")
        files.remove_tree(layer)


def needed_versions(host: Host) -> set[str]:
    """The templates that somebody's systems stand on: those in the making, set aside or kept of the removed as well."""
    folders = [lxc.container_folder(host, user.name) for user in user_state.all_users(host)]
    folders += (host.paths.home / tombstones.FOLDER).glob("*/.local/share/lxc/*")
    notes = [note for folder in folders for note in folder.glob("layer*/template")]
    return {(files.read_text(note, 64) or "").strip() for note in notes}
