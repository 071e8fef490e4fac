"""Unpacked templates: one folder a version, below a folder that only root can enter. Never changed, only removed."""

import os
from collections.abc import Set
from pathlib import Path

from labhost.host.config import Host
from labhost.storage import template_archive, tree
from labhost.system import files
from labhost.system.processes import finish, run, spawn

UNPACK_SECONDS = 900
_UNPACK = """
tar --extract --file=- --directory="$1" --preserve-permissions --numeric-owner --xattrs --xattrs-include='*' \
  --warning=no-unknown-keyword --anchored --exclude='./dev/*' --exclude='dev/*' \
  --exclude='./etc/ssh/ssh_host_*' --exclude='etc/ssh/ssh_host_*' --exclude='./etc/machine-id' \
  --exclude='etc/machine-id' --exclude='./var/lib/dbus/machine-id' --exclude='var/lib/dbus/machine-id'
"""


def folder(host: Host) -> Path:
    return host.paths.state / "templates"


def rootfs(host: Host, version: str) -> Path:
    return folder(host) / version / "rootfs"


def versions(host: Host) -> list[str]:
    if not folder(host).is_dir():
        return []
    return sorted(path.name for path in folder(host).iterdir() if (path / "rootfs").is_dir() and "." not in path.name)


def unpack(host: Host) -> str:
    """The version of the current template, unpacked now if it was not. The lock of templates must be held."""
    facts = template_archive.inspect(host)
    if rootfs(host, facts.version).is_dir():
        return facts.version
    folder(host).mkdir(mode=0o700, exist_ok=True)
    _forget_leftovers(host)
    tree.check_free_space(folder(host), facts.size)
    fresh = folder(host) / f"{facts.version}.new-{os.urandom(6).hex()}"
    (fresh / "rootfs").mkdir(mode=0o755, parents=True)
    try:
        _extract(host, fresh / "rootfs")
        template_archive.check_bootable(fresh / "rootfs")
        tree.sync(fresh)
        os.rename(fresh, folder(host) / facts.version)
    except BaseException:
        files.remove_tree(fresh)
        raise
    return facts.version


def prune(host: Host, needed: Set[str]) -> list[str]:
    """Removes the versions that nothing needs, and says which. The lock of templates must be held."""
    _forget_leftovers(host)
    gone = [version for version in versions(host) if version not in needed]
    for version in gone:
        # Renamed first: half a template must never be taken for a whole one.
        dying = folder(host) / f"{version}.new-{os.urandom(6).hex()}"
        os.rename(folder(host) / version, dying)
        files.remove_tree(dying)
    return gone


def _forget_leftovers(host: Host) -> None:
    for path in folder(host).glob("*.new-*"):
        files.remove_tree(path)


def _extract(host: Host, into: Path) -> None:
    with open(host.config.container.template, "rb") as archive:
        reader = spawn(template_archive.decompressor(archive), stdin=archive)
        assert reader.stdout is not None
        words = ["/bin/sh", "-c", _UNPACK, "sh", str(into)]
        unpacked = run(words, timeout=UNPACK_SECONDS, stdin=reader.stdout)
        read = finish(reader, ["the decompressor"], timeout=10)
    tree.check_disk_full(unpacked)
    read.check("the template cannot be read; ask the lab's staff to build it again")
    unpacked.check("the template cannot be unpacked")
    if (into / "etc").is_dir():
        # Empty: filled at the first boot, which then does not count as a first boot with questions.
        (into / "etc/machine-id").write_bytes(b"")
