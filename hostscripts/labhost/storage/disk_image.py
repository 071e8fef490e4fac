"""A file system of one person's own in a file, for servers whose file system has no quotas; see mke2fs(8).

The file is allocated in full: a sparse one would turn a full server into input and output errors for everybody.
"""

import os
import struct
from pathlib import Path

from labhost.errors import LabhostError
from labhost.system import mounts, run

_MKFS = ["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-E", "nodiscard,root_owner=0:0"]
SECONDS = 600
RESERVE = 64 << 20  # bytes, and at most 5 % of the image
_NOBODY = 65534


def path_of(folder: Path) -> Path:
    """The image that is mounted at `folder`."""
    return folder.with_name(f"{folder.name}.img")


def create(folder: Path, size: int, inodes: int) -> None:
    """LabhostError if there is too little space. An image that a killed run began is replaced."""
    fresh = path_of(folder).with_suffix(".img-new")
    fresh.unlink(missing_ok=True)
    try:
        with open(fresh, "xb") as stream:
            os.fchmod(stream.fileno(), 0o600)
        _allocate(fresh, size)
        run(
            [*_MKFS, "-m", f"{min(5, 100 * RESERVE / size):.4f}", "-N", str(inodes), "--", str(fresh)], timeout=SECONDS
        ).check("the disk image cannot be made", reason="image_not_made")
        os.rename(fresh, path_of(folder))
    finally:
        fresh.unlink(missing_ok=True)


def exists(folder: Path) -> bool:
    return path_of(folder).exists()


def is_detached(folder: Path) -> bool:
    """True if there is an image, and it is not mounted."""
    return exists(folder) and not mounts.is_mounted(folder)


def attach(folder: Path) -> None:
    """Mounts the image if there is one. One process at a time; LabhostError."""
    image = path_of(folder)
    if not is_detached(folder):
        return
    _allocate(image, image.stat().st_size)  # what somebody has trimmed
    command = [
        "/usr/bin/mount",
        "-t",
        "ext4",
        "-o",
        f"loop,nodev,nodiscard,resuid={_NOBODY}",
        "--",
        str(image),
        str(folder),
    ]
    run(command, timeout=60).check(f"the disk image {image} cannot be mounted", reason="image_not_mounted")
    device = os.stat(folder).st_dev
    queue = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue")
    (queue / "discard_max_bytes").write_text("0")  # or fstrim would make it sparse


def open_reserve(folder: Path, gid: int) -> None:
    """Lets a group, and root without capabilities, use the reserve; 0 closes it. LabhostError."""
    if mounts.is_mounted(folder):
        options = f"remount,resuid={0 if gid else _NOBODY},resgid={gid}"
        run(["/usr/bin/mount", "-o", options, "--", str(folder)], timeout=60).check(
            "the disk image cannot be mounted again", reason="image_not_mounted"
        )


def detach(folder: Path) -> bool:
    """Unmounts the image; False if there is none. OSError while it is in use."""
    if not exists(folder):
        return False
    mounts.unmount(folder)
    return True


def grow(folder: Path, size: int) -> None:
    """Makes a mounted image larger; it never shrinks. LabhostError if there is too little space."""
    image = path_of(folder)
    if size_of(folder) >= size or not mounts.is_mounted(folder):
        return
    _allocate(image, size)
    device = os.stat(folder).st_dev
    name = os.path.basename(os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
    for command in (["/usr/sbin/losetup", "--set-capacity"], ["/usr/sbin/resize2fs"]):
        run([*command, f"/dev/{name}"], timeout=SECONDS).check("the disk image cannot grow", reason="image_not_grown")


def usage(folder: Path) -> tuple[int, int] | None:
    """Bytes in use, and the size of the image; None while it is not mounted."""
    if not mounts.is_mounted(folder):
        return None
    space = os.statvfs(folder)
    return (space.f_blocks - space.f_bfree) * space.f_frsize, size_of(folder)


def size_of(folder: Path) -> int:
    """Bytes of the file system in the image, from its superblock; see ext4(5) and the kernel's ext4/super.rst."""
    with open(path_of(folder), "rb") as stream:
        stream.seek(1024)
        block = stream.read(1024)
    (low, shift, high) = (struct.unpack_from("<I", block, offset)[0] for offset in (0x4, 0x18, 0x150))
    return int((high << 32 | low) << (10 + shift))


def _allocate(image: Path, size: int) -> None:
    """Also fills holes; nothing that is written changes. See fallocate(1)."""
    result = run(["/usr/bin/fallocate", "--length", str(size), "--", str(image)], timeout=SECONDS)
    if not result.ok:
        text = f"no {size >> 20} MB for the disk image: {result.error_line}; ask the lab's staff to free some space"
        raise LabhostError(text, reason="no_space_for_image", megabytes=size >> 20, detail=result.error_line)
