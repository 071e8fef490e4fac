"""What is done with a person's tree of files: all of it as root of her id map, nothing as the host's root."""

import ctypes
import os
from pathlib import Path
from typing import IO

from labhost import lxc
from labhost.errors import LabhostError
from labhost.system.processes import Account, Process, Result, run, spawn

SECONDS = 1800
MIN_FREE = 64 * 1024 * 1024
# The extended attributes that are a file's own. overlay(7)'s origin, redirect and metacopy point to other
# files by number or path: the kernel makes them anew or does without, and an archive must not bring them.
_ATTRIBUTES = ["--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability", "--acls"]
_ATTRIBUTES += [f"--xattrs-exclude=user.overlay.{name}" for name in ("origin", "redirect", "metacopy")]
_TAR = ["/usr/bin/tar", "--file=-", "--numeric-owner", *_ATTRIBUTES]


def size(account: Account, subuid: int, path: Path) -> int:
    """Bytes on the disk."""
    words = ["/usr/bin/du", "--summarize", "--one-file-system", "--block-size=1", "--", str(path)]
    result = run(lxc.in_id_map(account, subuid, words), timeout=300, account=account)
    number = result.out.split(b"\t")[0]
    if not number.isdigit():
        result.check("the files cannot be counted")
        raise LabhostError("the files cannot be counted")
    return int(number)


def archive(account: Account, subuid: int, path: Path) -> Process:
    words = [*_TAR, "--create", "--sparse", "--one-file-system", "--warning=none", f"--directory={path}", "."]
    return spawn(lxc.in_id_map(account, subuid, words), account=account)


def extract(account: Account, subuid: int, stream: IO[bytes], path: Path) -> Result:
    """Into an empty folder. tar refuses members that lead out of it, and the map refuses device nodes."""
    words = [*_TAR, "--extract", "--preserve-permissions", "--warning=no-unknown-keyword", f"--directory={path}"]
    return run(lxc.in_id_map(account, subuid, words), timeout=SECONDS, account=account, stdin=stream)


def unpack(account: Account, subuid: int, stream: IO[bytes], path: Path) -> None:
    """`extract`, and all of it on the disk; LabhostError."""
    result = extract(account, subuid, stream, path)
    check_disk_full(result)
    result.check("the snapshot cannot be unpacked")
    sync(path)


def remove(account: Account, subuid: int, path: Path) -> None:
    inside = lxc.in_id_map(account, subuid, ["/usr/bin/find", str(path), "-mindepth", "1", "-delete"])
    run(inside, timeout=SECONDS, account=account)
    try:
        path.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise LabhostError(f"{path} cannot be removed: {error.strerror}") from error


def check_disk_full(result: Result) -> None:
    if b"No space left" in result.err or b"Disk quota" in result.err:
        raise LabhostError("the disk is full; ask the lab's staff to make room")


def check_free_space(path: Path, size: int) -> None:
    """LabhostError if the file system of `path` has no room for `size` bytes and a little more."""
    room = os.statvfs(path)
    needed = size + MIN_FREE
    if room.f_bavail * room.f_frsize < needed:
        raise LabhostError(f"the disk is low: {needed >> 20} MB are needed; ask the lab's staff to make room")


def sync(path: Path) -> None:
    """The file system of `path` is on the disk: a rename must not outlive a power cut without its files."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            raise LabhostError(f"{path} cannot be written to the disk")
    finally:
        os.close(fd)
