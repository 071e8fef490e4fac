"""Storage `overlay`: a layer of the person's own over the unpacked template, seen through their id map.

A slot contains `upper` (the person's), `work` (the kernel's) and `template` (the version below). It is renamed only
while it is not mounted, so what is mounted is always the current one.
"""

import os
from contextlib import suppress
from pathlib import Path

from labhost import lxc
from labhost.accounts import tombstones
from labhost.errors import LabhostError, Refused
from labhost.host import SUBUID_COUNT, Host, User, locks, user_state
from labhost.storage import quota, template_archive, templates, tree
from labhost.storage.driver import Storage
from labhost.system import Account, failpoints, files, mounts


class OverlayStorage(Storage):
    name = "overlay"
    slot = "layer"

    def check(self) -> None:
        template = template_archive.inspect(self._host)
        unpacked = templates.rootfs(self._host, template.version).is_dir()
        tree.check_free_space(templates.folder(self._host), 0 if unpacked else template.size)
        tree.check_free_space(self._host.paths.home, 0)

    def attach(self, user: User, account: Account) -> None:
        quota.attach(self._host, user)
        with locks.mounts(self._host, user.name):
            if mounts.is_mounted(self.rootfs(user)):
                return
            slots = self._slots(user)
            slots.repair()
            self.rootfs(user).mkdir(mode=0o755, exist_ok=True)
            self._mount(user, slots.current, self.rootfs(user))

    def detach(self, user: User, account: Account) -> None:
        path = self.rootfs(user)
        with locks.mounts(self._host, user.name):
            try:
                mounts.unmount(path)
            except OSError as error:
                text = f"{path} is in use: {error.strerror}; try again"
                raise LabhostError(text, reason="files_in_use", path=str(path), problem=str(error.strerror)) from error

    def create_fresh(self, user: User, account: Account) -> Path:
        return self._create_layer(user)

    def unpack(self, user: User, account: Account, archive: tree.Archive, template: str) -> Path:
        if not templates.rootfs(self._host, template).is_dir():
            text = f"this snapshot needs the template {template}, which is no longer on this server"
            raise Refused(text, reason="snapshot_template_missing", template=template)
        layer = self._create_layer(user, template)
        try:
            tree.unpack(user.subuid, archive, layer / "upper")
            self._check_layer(user, layer)
        except BaseException:
            with suppress(LabhostError):
                self._remove(user, account, layer)
            raise
        return layer

    def install(self, user: User, account: Account, system: Path) -> None:
        self.detach(user, account)
        failpoints.hit("detached")
        self._slots(user).install(system)
        failpoints.hit("swapped")
        self.attach(user, account)

    def roll_back(self, user: User, account: Account) -> bool:
        self.detach(user, account)
        found = self._slots(user).roll_back()
        self.attach(user, account)
        return found

    def version(self, user: User) -> str:
        """The template's version below the current system."""
        return _template_of(self._slots(user).current)

    def remove(self, user: User, account: Account) -> None:
        super().remove(user, account)
        with suppress(FileNotFoundError):
            self.rootfs(user).rmdir()

    def release(self, user: User) -> None:
        with suppress(LabhostError):  # a removal goes on
            quota.attach(self._host, user)
        versions = {path.name: _template_of(path) for path in self._slots(user).all()}
        if quota.release(self._host, user):
            # The templates that the image needs, where needed_versions finds them while it is not mounted.
            for name, version in versions.items():
                (self._folder(user) / name).mkdir(mode=0o755, exist_ok=True)
                files.write_atomic(self._folder(user) / name / "template", version + "\n", mode=0o644)

    def _own_files(self, user: User) -> Path:
        return self._slots(user).current / "upper"

    def _create_layer(self, user: User, version: str = "") -> Path:
        """An empty layer over the template of that version, or over the current one."""
        with locks.templates(self._host):
            version = version or templates.unpack(self._host)
            fresh = self._slots(user).new_path()
            fresh.mkdir(mode=0o755)
            quota.cover(self._host, user, fresh)
            files.write_atomic(fresh / "template", version + "\n", mode=0o644)
        (fresh / "work").mkdir(mode=0o700)
        (fresh / "upper").mkdir(mode=0o755)
        os.chown(fresh / "upper", user.subuid, user.subuid)
        return fresh

    def _check_layer(self, user: User, layer: Path) -> None:
        """LabhostError if this layer could not boot."""
        mounted = layer / "rootfs"
        mounted.mkdir()
        self._mount(user, layer, mounted)
        try:
            template_archive.check_bootable(mounted)
        finally:
            mounts.unmount(mounted)
            mounted.rmdir()

    def _mount(self, user: User, layer: Path, target: Path) -> None:
        version = _template_of(layer)
        below = templates.rootfs(self._host, version)
        if not version or not below.is_dir():
            text = f"the template {version or 'of this system'} is missing; ask the lab's staff"
            raise LabhostError(text, reason="system_template_missing", template=version)
        view = self._host.paths.state / "mounts" / user.name
        view.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            mounts.unmount(view)  # left by a killed run
            mounts.idmapped(below, view, user.subuid, SUBUID_COUNT)
            folders = {"upper": layer / "upper", "work": layer / "work"}
            mounts.overlay(target, lower=view, **folders, owner=user.subuid)
            mounts.unmount(view)  # the overlay has a copy of its own
        except OSError as error:
            text = f"the files of {user.name} cannot be mounted: {error.strerror}"
            raise LabhostError(text, reason="files_not_mounted", user=user.name, problem=str(error.strerror)) from error

    def _remove(self, user: User, account: Account, layer: Path) -> None:
        with suppress(OSError):
            mounts.unmount(layer / "rootfs")
        if (layer / "upper").is_dir():
            tree.remove(user.subuid, layer / "upper")
        files.remove_tree(layer)


def needed_versions(host: Host) -> set[str]:
    """The templates that systems need: current, previous and new ones, and those of removed people."""
    folders = [lxc.container_folder(host, user.name) for user in user_state.all_users(host)]
    folders += (host.paths.home / tombstones.FOLDER).glob("*/.local/share/lxc/*")
    found = [path for folder in folders for path in folder.glob("layer*/template")]
    return {_template_of(path.parent) for path in found}


def _template_of(layer: Path) -> str:
    return (files.read_text(layer / "template", 64) or "").strip()
