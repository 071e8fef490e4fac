"""Unpacked templates: one folder per version, below a folder that only root can enter. Never changed, only removed."""

import os
from collections.abc import Set
from pathlib import Path

from labhost.host import Host
from labhost.storage import template_archive, tree
from labhost.system import files


def folder(host: Host) -> Path:
    return host.paths.state / "templates"


def rootfs(host: Host, version: str) -> Path:
    return folder(host) / version / "rootfs"


def versions(host: Host) -> list[str]:
    if not folder(host).is_dir():
        return []
    return sorted(path.name for path in folder(host).iterdir() if (path / "rootfs").is_dir() and "." not in path.name)


def unpack(host: Host) -> str:
    """The version of the current template, unpacked now if it was not yet. The templates lock must be held."""
    template = template_archive.inspect(host)
    if rootfs(host, template.version).is_dir():
        return template.version
    folder(host).mkdir(mode=0o700, exist_ok=True)
    _remove_leftovers(host)
    tree.check_free_space(folder(host), template.size)
    fresh = _new_path(host, template.version)
    (fresh / "rootfs").mkdir(mode=0o755, parents=True)
    try:
        template_archive.unpack(host, fresh / "rootfs")
        template_archive.check_bootable(fresh / "rootfs")
        tree.sync(fresh)
        os.rename(fresh, folder(host) / template.version)
    except BaseException:
        files.remove_tree(fresh)
        raise
    return template.version


def prune(host: Host, needed: Set[str]) -> list[str]:
    """Removes the versions that are not in `needed`, and returns them. The templates lock must be held."""
    _remove_leftovers(host)
    removed = [version for version in versions(host) if version not in needed]
    for version in removed:
        # Renamed first: half a template must never be taken for a whole one.
        leftover = _new_path(host, version)
        os.rename(folder(host) / version, leftover)
        files.remove_tree(leftover)
    return removed


def _new_path(host: Host, version: str) -> Path:
    return folder(host) / f"{version}.new-{os.urandom(6).hex()}"


def _remove_leftovers(host: Host) -> None:
    for path in folder(host).glob("*.new-*"):
        files.remove_tree(path)
