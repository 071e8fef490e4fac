"""The file system of root's state: an image whose blocks and inodes exist in advance, so no full disk stops labhost.

Without an image (there was no space or no loop device at set-up) the state is a plain folder, which doctor reports.
"""

import os
from pathlib import Path

from labhost.errors import LabhostError
from labhost.system import run

OPTIONS = "loop,nodev,nosuid,noexec,noatime"  # as in lab-iam-state.mount, which mounts it at boot


def image_of(state: Path) -> Path:
    return state.with_name(f"{state.name}.img")


def ensure_mounted(state: Path) -> None:
    """LabhostError if there is an image that is not mounted and cannot be: the folder below it must not be used."""
    image = image_of(state)
    if not image.exists() or os.path.ismount(state):
        return
    result = run(["/usr/bin/mount", "-t", "ext4", "-o", OPTIONS, "--", str(image), str(state)], timeout=60)
    if not os.path.ismount(state):
        text = f"{image} cannot be mounted at {state}: {result.error_line}"
        raise LabhostError(text, reason="state_not_mounted", path=str(state), detail=result.error_line)
    keep_allocated(state)


def keep_allocated(state: Path) -> None:
    """Refills holes of the image, and forbids to punch new ones, as fstrim(8) would; OSError."""
    if not is_whole(state):
        with open(image_of(state), "rb+") as image:
            os.posix_fallocate(image.fileno(), 0, os.fstat(image.fileno()).st_size)
    if image_of(state).exists():
        device = os.stat(state).st_dev
        limit = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue/discard_max_bytes")
        if limit.exists() and limit.read_text().strip() != "0":
            limit.write_text("0")


def is_whole(state: Path) -> bool:
    """False if blocks of the image are not allocated."""
    try:
        status = os.stat(image_of(state))
    except FileNotFoundError:
        return True
    return status.st_blocks * 512 >= status.st_size
