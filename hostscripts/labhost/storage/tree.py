"""Operations on a person's tree of files: all as root of their id map, nothing as the host's root."""

import os
import re
from pathlib import Path
from typing import IO, NamedTuple

from labhost.accounts import id_map
from labhost.errors import LabhostError, Refused
from labhost.system import Process, Result, openat2, printable

SECONDS = 1800
MIN_FREE = 64 * 1024 * 1024
PATH_MOST = 4095  # bytes of a member's name, which tar gives to the kernel in one piece, see PATH_MAX in limits.h
# Extended attributes of the files themselves. overlay(7)'s origin, redirect and metacopy point to other files by
# number or path: the kernel recreates or does without them, and an archive must not contain them.
_ATTRIBUTES = ["--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability", "--acls"]
_ATTRIBUTES += [f"--xattrs-exclude=user.overlay.{name}" for name in ("origin", "redirect", "metacopy")]
_TAR = ["/usr/bin/tar", "--file=-", "--numeric-owner", "--totals", *_ATTRIBUTES]
_TOTAL = re.compile(rb"^Total bytes (?:read|written): ([0-9]+) ", re.MULTILINE)
_TOO_LONG = ["/usr/bin/env", "LC_ALL=C", "/usr/bin/find", ".", "-path", "?" * (PATH_MOST + 1) + "*", "-print", "-quit"]


class Archive(NamedTuple):
    stream: IO[bytes]
    total: int  # bytes in the stream, as tar counts them


def size(subuid: int, path: Path) -> int:
    """Bytes on the disk."""
    command = ["/usr/bin/du", "--summarize", "--one-file-system", "--block-size=1", "--", "."]
    result = id_map.run(subuid, path, command, timeout=300)
    number = result.out.split(b"\t")[0]
    if not number.isdigit():
        text = f"the size of the files is unknown: {result.error_line}"
        raise LabhostError(text, reason="size_unknown", detail=result.error_line)
    return int(number)


def archive(subuid: int, path: Path) -> Process:
    """tar, which ends its stderr with its total (see total_of). Refused if a file could not be unpacked again."""
    if found := _find_too_long(subuid, path):
        text = f"the path {shown(found)} is longer than {PATH_MOST} bytes and could not be restored: move or delete it"
        raise Refused(text, reason="path_too_long", path=shown(found), most=PATH_MOST)
    command = [*_TAR, "--create", "--sparse", "--one-file-system", "--warning=none", "."]
    return id_map.spawn(subuid, path, command)


def shown(path: bytes) -> str:
    """The beginning of a path, for a message."""
    return printable(path.decode("utf-8", "replace"), 60)


def _find_too_long(subuid: int, path: Path) -> bytes:
    result = id_map.run(subuid, path, _TOO_LONG, timeout=SECONDS)
    if result.code != 1:  # 1: a folder of a running container went away
        result.check("the files cannot be listed", reason="files_not_listed")
    return result.out.removesuffix(b"\n")


def extract(subuid: int, stream: IO[bytes], path: Path) -> Result:
    """Extracts into an empty folder. tar refuses paths that leave it, and the id map refuses device nodes."""
    command = [*_TAR, "--extract", "--preserve-permissions", "--warning=none"]
    return id_map.run(subuid, path, command, timeout=SECONDS, stdin=stream)


def total_of(errors: bytes) -> int:
    """The bytes of the archive that tar wrote or read to its end, by its stderr with --totals; 0 if it did not."""
    found = _TOTAL.findall(errors)
    return int(found[-1]) if found else 0


def unpack(subuid: int, archive: Archive, path: Path) -> None:
    """Extracts the whole archive, and waits until all is on the disk; LabhostError."""
    result = extract(subuid, archive.stream, path)
    check_disk_full(result)
    result.check("the snapshot cannot be unpacked", reason="snapshot_not_unpacked")
    if total_of(result.err) != archive.total:
        detail = "it was not read to its end"
        text = f"the snapshot cannot be unpacked: {detail}"
        raise LabhostError(text, reason="snapshot_not_unpacked", command="tar", detail=detail)
    sync(path)


def remove(subuid: int, path: Path) -> None:
    try:
        id_map.run(subuid, path, ["/usr/bin/find", ".", "-mindepth", "1", "-delete"], timeout=SECONDS)
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


def check_free_space(path: Path | int, size: int) -> None:
    """LabhostError if the file system of `path` (or of a descriptor) lacks `size` bytes and a reserve."""
    space = os.statvfs(path)
    needed = size + MIN_FREE
    if space.f_bavail * space.f_frsize < needed:
        text = f"the disk is low: {needed >> 20} MB are needed; ask the lab's staff to free some space"
        raise LabhostError(text, reason="disk_low", megabytes=needed >> 20)


def sync(path: Path) -> None:
    """Brings the file system of `path` to the disk: a rename must not survive a power cut without its files."""
    with openat2.directory(path) as fd:
        openat2.sync_file_system(fd)
