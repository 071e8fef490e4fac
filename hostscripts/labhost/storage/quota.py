"""How much disk a container may fill: the portal's limit `disk`, enforced by the file system of the homes.

On btrfs a container's folder is a subvolume with a qgroup. On ext4 and XFS its systems have a project quota; the
project's number is a subordinate id of the person's, so nobody else ever gets it. Elsewhere the folder may be an ext4
image of its own. host.conf chooses for new containers; what lies on the disk decides for those that exist.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from labhost import lxc
from labhost.accounts import tombstones
from labhost.errors import LabhostError
from labhost.host import SUBUID_COUNT, Host, User, locks
from labhost.storage import disk_image
from labhost.system import Account, btrfs, log, project_quota

ROOM = 64 << 20  # bytes above the limit while root prepares a start or a new system
INODE_BYTES, SPARE_INODES = 16 << 10, 200_000
NONE, AUTO, IMAGE = "none", "auto", "image"  # [container] quota
BTRFS, PROJECT = "btrfs", "project"


class Usage(NamedTuple):
    """Bytes as the kernel counts them; `limit` is 0 if there is none."""

    used: int
    limit: int


def make_folder(host: Host, user: User) -> None:
    """The container's folder, in which the limit can be enforced; safe to repeat. LabhostError, OSError."""
    folder, kind, size = lxc.container_folder(host, user.name), _kind_of_new(host, user), wanted(host, user)
    if not folder.exists():
        if kind == BTRFS:
            btrfs.create_subvolume(folder)
        else:
            folder.mkdir(mode=0o755)
    if kind == IMAGE and not disk_image.exists(folder) and not os.listdir(folder):
        disk_image.create(folder, size, min(_inodes(size), size >> 12))
    attach(host, user)
    apply(host, user)


def attach(host: Host, user: User) -> None:
    """Mounts the person's image, if the container has one. Safe to repeat; LabhostError."""
    folder = lxc.container_folder(host, user.name)
    if disk_image.is_detached(folder):
        with locks.mounts(host, user.name):
            disk_image.attach(folder)


def release(host: Host, user: User) -> bool:
    """Ends the limit before the folder is moved away or deleted; True if an image was unmounted. OSError."""
    folder = lxc.container_folder(host, user.name)
    if folder.exists():
        with suppress(OSError):  # a removal goes on
            _set_limit(folder, _kind(host, user), 0)
    return disk_image.detach(folder)


def cover(host: Host, user: User, system: Path) -> None:
    """Puts a new, empty system under the limit."""
    folder = lxc.container_folder(host, user.name)
    if _kind(host, user) == PROJECT:
        project_quota.assign(system, project_quota.project_of(folder), inherit=True)


def apply(host: Host, user: User, room: int = 0) -> None:
    """Makes the kernel's limit what it should be, plus `room` bytes; does nothing where nothing can. OSError."""
    folder, size = lxc.container_folder(host, user.name), wanted(host, user)
    kind = _kind(host, user)
    if not kind and folder.exists() and _kind_of_new(host, user) == PROJECT:
        project_quota.assign(folder, _new_project(host, user), inherit=False)
        kind = PROJECT
    _set_limit(folder, kind, size and size + room)
    if kind == IMAGE:
        disk_image.open_reserve(folder, user.subuid if room else 0)
        disk_image.grow(folder, size)


def _set_limit(folder: Path, kind: str, size: int) -> None:
    if kind == BTRFS:
        btrfs.set_limit(folder, size)
    elif kind == PROJECT:
        inodes = size and _inodes(size)
        project_quota.set_limits(folder, project_quota.project_of(folder), size=size, inodes=inodes)


@contextmanager
def some_room(host: Host, user: User, account: Account) -> Iterator[None]:
    """ROOM for what root does to start or replace a system: who fills their disk can still start, and delete files.

    On btrfs even a rename needs some. The room is above what is used, or above the limit if the container is running,
    as it could use it too. Where the limit cannot be set the work goes on: `status` and `doctor` show it.
    """
    attach(host, user)
    _apply_or_warn(host, user, ROOM, above_usage=not lxc.is_running(host, account))
    try:
        yield
    finally:
        _apply_or_warn(host, user, 0)


def _apply_or_warn(host: Host, user: User, room: int, *, above_usage: bool = False) -> None:
    try:
        size, found = wanted(host, user), _usage(host, user) if above_usage else None
        apply(host, user, room + max(0, found.used - size if found and size else 0))
    except (LabhostError, OSError) as error:
        log.write(f"{user.name}: the disk limit cannot be set: {error}", warning=True)


def wanted(host: Host, user: User) -> int:
    """The limit in bytes, 0 for none."""
    return 0 if host.config.container.quota == NONE else int(user.limits.get("disk", 0))


def usage(host: Host, user: User, system: Path) -> Usage | None:
    """What the kernel knows of the container whose current system is `system`, at once; None if it counts nothing."""
    if _kind(host, user) == PROJECT and not _is_covered(host, user, system):
        return None  # made before there was a limit
    return _usage(host, user)


def _usage(host: Host, user: User) -> Usage | None:
    folder = lxc.container_folder(host, user.name)
    match _kind(host, user):
        case "project":
            found: tuple[int, int] | None = project_quota.usage(folder, project_quota.project_of(folder))[:2]
        case "btrfs":
            found = btrfs.usage(folder)
        case "image":
            found = disk_image.usage(folder)
        case _:
            found = None
    return None if found is None else Usage(*found)


def _is_covered(host: Host, user: User, system: Path) -> bool:
    return project_quota.project_of(system) == project_quota.project_of(lxc.container_folder(host, user.name))


def is_enforced(host: Host, user: User, system: Path) -> bool:
    """True if the container's current system cannot use more than the portal's limit; also without a limit."""
    size, found = int(user.limits.get("disk", 0)), usage(host, user, system)
    return not size or (found is not None and 0 < found.limit <= size + ROOM)


def obstacle(host: Host, user: User, system: Path) -> str:
    """Why `apply` cannot enforce the limit of an existing container; empty if it can."""
    folder, home = lxc.container_folder(host, user.name), host.paths.home
    kind, possible = _kind(host, user), _kind_of_new(host, user)
    if host.config.container.quota == NONE:
        return "host.conf has [container] quota = none"
    if kind == IMAGE:
        return "an image cannot shrink" if disk_image.size_of(folder) > wanted(host, user) + ROOM else ""
    if kind == BTRFS:
        return ""
    if possible == PROJECT:
        covered = kind == PROJECT and _is_covered(host, user, system)
        return "" if covered else "made before there was a limit; rebuild or recover it"
    if possible:
        return "made before there was a limit; remove and register it"
    if btrfs.is_btrfs(home):
        return "on btrfs this needs storage overlay"
    return f"the file system of {home} enforces no quotas; see [container] quota"


def kind_offered(host: Host) -> str:
    """What new containers get where they have a limit: btrfs, project, image or nothing."""
    return _kind_of_new(host, User("", limits={"disk": "1"}))


def is_detached(host: Host, name: str) -> bool:
    """True if the person has an image that is not mounted: nobody knows what is in it."""
    return disk_image.is_detached(lxc.container_folder(host, name))


def _kind(host: Host, user: User) -> str:
    folder = lxc.container_folder(host, user.name)
    if disk_image.exists(folder):
        return IMAGE
    if not folder.is_dir():
        return ""
    if btrfs.is_subvolume(folder):
        return BTRFS
    own = range(user.subuid, user.subuid + SUBUID_COUNT) if user.subuid else range(0)
    return PROJECT if project_quota.project_of(folder) in own and project_quota.is_enforced(folder) else ""


def _kind_of_new(host: Host, user: User) -> str:
    chosen, home = host.config.container.quota, host.paths.home
    if chosen == IMAGE:
        return IMAGE if wanted(host, user) else ""
    if chosen == NONE:
        return ""
    if btrfs.is_btrfs(home):
        # In a system of `dir` the container's root could make subvolumes, to which the limit does not apply.
        return BTRFS if (user.storage or host.config.container.storage) == "overlay" else ""
    return PROJECT if project_quota.is_enforced(home) else ""


def _new_project(host: Host, user: User) -> int:
    """Another one after each removal that left files, so that kept files do not count again."""
    removed = tombstones.load(host, user.name, user.subuid)
    return user.subuid + (len(removed.kept_folders) if removed else 0)


def _inodes(size: int) -> int:
    return SPARE_INODES + size // INODE_BYTES
