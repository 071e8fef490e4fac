"""Operations on a person's tree of files: all as root of their id map, nothing as the host's root."""

import os
from pathlib import Path
from typing import IO

from labhost import lxc
from labhost.errors import LabhostError
from labhost.system import Account, Process, Result, openat2, run, spawn

SECONDS = 1800
MIN_FREE = 64 * 1024 * 1024
# Extended attributes of the files themselves. overlay(7)'s origin, redirect and metacopy point to other files by
# number or path: the kernel recreates or does without them, and an archive must not contain them.
_ATTRIBUTES = ["--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability", "--acls"]
_ATTRIBUTES += [f"--xattrs-exclude=user.overlay.{name}" for name in ("origin", "redirect", "metacopy")]
_TAR = ["/usr/bin/tar", "--file=-", "--numeric-owner", *_ATTRIBUTES]


def size(account: Account, subuid: int, path: Path) -> int:
    """Bytes on the disk."""
    command = ["/usr/bin/du", "--summarize", "--one-file-system", "--block-size=1", "--", str(path)]
    result = run(lxc.in_id_map(account, subuid, command), timeout=300, account=account)
    number = result.out.split(b"\t")[0]
    if not number.isdigit():
        text = f"the size of the files is unknown: {result.error_line}"
        raise LabhostError(text, reason="size_unknown", detail=result.error_line)
    return int(number)


def archive(account: Account, subuid: int, path: Path) -> Process:
    command = [*_TAR, "--create", "--sparse", "--one-file-system", "--warning=none", f"--directory={path}", "."]
    return spawn(lxc.in_id_map(account, subuid, command), account=account)


def extract(account: Account, subuid: int, stream: IO[bytes], path: Path) -> Result:
    """Extracts into an empty folder. tar refuses paths that leave it, and the id map refuses device nodes."""
    command = [*_TAR, "--extract", "--preserve-permissions", "--warning=no-unknown-keyword", f"--directory={path}"]
    return run(lxc.in_id_map(account, subuid, command), timeout=SECONDS, account=account, stdin=stream)


def unpack(account: Account, subuid: int, stream: IO[bytes], path: Path) -> None:
    """Like `extract`, and waits until all is on the disk; LabhostError."""
    result = extract(account, subuid, stream, path)
    check_disk_full(result)
    result.check("the snapshot cannot be unpacked", reason="snapshot_not_unpacked")
    sync(path)


def remove(account: Account, subuid: int, path: Path) -> None:
    command = lxc.in_id_map(account, subuid, ["/usr/bin/find", str(path), "-mindepth", "1", "-delete"])
    run(command, timeout=SECONDS, account=account)
    try:
        path.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        text = f"{path} cannot be removed: {error.strerror}"
        raise LabhostError(text, reason="files_not_deleted", path=str(path), problem=str(error.strerror)) from error


def check_disk_full(result: Result) -> None:
    if b"Disk quota" in result.err:
        text = "the disk limit leaves too little room: delete files, or rebuild and start the container first"
        raise LabhostError(text, reason="disk_limit_reached")
    if b"No space left" in result.err:
        raise LabhostError("the disk is full; ask the lab's staff to free some space", reason="disk_full")


def check_free_space(path: Path, size: int) -> None:
    """LabhostError if the file system of `path` lacks `size` bytes and a reserve."""
    space = os.statvfs(path)
    needed = size + MIN_FREE
    if space.f_bavail * space.f_frsize < needed:
        text = f"the disk is low: {needed >> 20} MB are needed; ask the lab's staff to free some space"
        raise LabhostError(text, reason="disk_low", megabytes=needed >> 20)


def sync(path: Path) -> None:
    """Brings the file system of `path` to the disk: a rename must not survive a power cut without its files."""
    with openat2.directory(path) as fd:
        openat2.sync_file_system(fd)
