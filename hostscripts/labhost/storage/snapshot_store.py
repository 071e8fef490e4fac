"""Snapshots as files: FOLDER/SERVER/SUBUID/SNAPSHOT.tar.zst, described by a SNAPSHOT.json beside it.

SUBUID is the person's first subordinate id, which nobody else ever gets, unlike their name. The .json is written last
and removed first, so an archive without one is a leftover. The folder is usually a mounted NAS, on which others may
write: set-up creates SERVER, and root works only in SERVER and SUBUID that are its own, by descriptors of them.
"""

import json
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from labhost.errors import LabhostError, Refused
from labhost.host import Host
from labhost.storage import tree
from labhost.system import files, openat2, printable
from labhost.system.json_files import known_fields

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
VERSION = re.compile(r"[0-9a-f]{12}", re.ASCII)
OWNER = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
CHUNK = 1 << 20
MANIFEST_MOST = 65536
ARCHIVE, UNFINISHED = ".tar.zst", (".tar.zst.new", ".lab-iam-new")


@dataclass(frozen=True)
class Manifest:
    name: str
    user: str  # for staff; the owner is `subuid`
    subuid: int
    server: str
    created_at: float  # seconds since the epoch
    storage: str  # the driver: `dir` has all files, `overlay` what differs from the template
    template: str  # its version; empty for `dir`, which needs none
    unpacked: int  # bytes
    size: int
    sha256: str


def check_snapshot_name(text: str) -> str:
    """The name itself; Refused if it is none."""
    if not NAME.fullmatch(text):
        shown = printable(text, 40)
        message = f"{shown!r} is not a snapshot's name: use letters, digits, _ - and ., at most 64 characters"
        raise Refused(message, reason="invalid_snapshot_name", name=shown)
    return text


def prepare(host: Host) -> None:
    """Creates the folder of this server, for set-up. Refused if others could read or write it."""
    folder = host.config.snapshots.folder
    if folder is None:
        return
    if not folder.is_dir():
        text = f"the snapshot folder {folder} does not exist; mount or create it"
        raise Refused(text, reason="snapshot_folder_missing", path=str(folder))
    with suppress(FileExistsError):
        (folder / host.config.server.name).mkdir(mode=0o700)
    with _server(host):
        pass
    with _server(host):
        return


def list_snapshots(host: Host, subuid: int) -> list[Manifest]:
    """The person's snapshots, oldest first."""
    with _opened(host, subuid) as folder:
        found = (_load(folder, name, subuid) for name in os.listdir(folder) if name.endswith(".json"))
        return sorted((one for one in found if one is not None), key=lambda one: (one.created_at, one.name))


def find(host: Host, subuid: int, name: str) -> Manifest:
    with _opened(host, subuid) as folder:
        found = _load(folder, f"{check_snapshot_name(name)}.json", subuid)
    if found is None:
        text = f"there is no snapshot {name}; see: ssh {host.config.server.name}-manage snapshots"
        raise Refused(text, reason="no_snapshot", name=name)
    return found


def templates_in_use(host: Host) -> set[str] | None:
    """Versions that this server's snapshots need; None if that is unknown now."""
    if host.config.snapshots.folder is None:
        return set()
    try:
        with _server(host) as server:
            owners = [int(name) for name in os.listdir(server) if OWNER.fullmatch(name)]
        return {one.template for owner in owners for one in list_snapshots(host, owner) if one.storage == "overlay"}
    except (LabhostError, OSError):
        return None


def strange_entries(host: Host, owners: Collection[int]) -> list[str]:
    """Paths in this server's folder that are not a private folder of one of `owners`. LabhostError."""
    if host.config.snapshots.folder is None:
        return []
    with _server(host) as server:
        names = [name for name in os.listdir(server) if not name.startswith(".") and name != "lost+found"]
        known = {str(owner) for owner in owners}
        strange = [name for name in names if name not in known or not _is_private(os.lstat(name, dir_fd=server))]
    return sorted(str(_path(host) / name) for name in strange)


def check_free_space(host: Host, subuid: int, size: int) -> None:
    """LabhostError if the folder has no room for so many bytes."""
    with _opened(host, subuid) as folder:
        tree.check_free_space(folder, size)


@contextmanager
def open_new(host: Host, subuid: int, name: str) -> Iterator[IO[bytes]]:
    """A file that becomes the archive of this name at the end, whole or not at all; `publish` adds its manifest."""
    target, temporary = f"{name}{ARCHIVE}", f".{name}{UNFINISHED[0]}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _opened(host, subuid) as folder:
        try:
            with open(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(temporary, target, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            _unlink(folder, temporary)
            raise
        os.fsync(folder)


def reopened(stream: IO[bytes]) -> IO[bytes]:
    """A file that is being written, to read what has reached the disk."""
    stream.flush()
    os.fsync(stream.fileno())
    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return open(f"/proc/self/fd/{stream.fileno()}", "rb")


def publish(host: Host, manifest: Manifest) -> None:
    text, owner = json.dumps(asdict(manifest), indent=1) + "\n", (os.geteuid(), os.getegid())
    with _opened(host, manifest.subuid) as folder:
        openat2.replace_file(folder, f"{manifest.name}.json", text, owner=owner, mode=0o600)


def remove(host: Host, manifest: Manifest) -> None:
    with _opened(host, manifest.subuid) as folder:
        _unlink(folder, f"{manifest.name}.json")
        os.fsync(folder)
        _unlink(folder, f"{manifest.name}{ARCHIVE}")


def remove_leftovers(host: Host, subuid: int) -> None:
    """Removes what killed or failed snapshots left. The person's lock must be held."""
    with _opened(host, subuid) as folder:
        names = set(os.listdir(folder))
        for name in names:
            orphan = name.endswith(ARCHIVE) and name.removesuffix(ARCHIVE) + ".json" not in names
            if orphan or (name.startswith(".") and name.endswith(UNFINISHED)):
                _unlink(folder, name)


def purge(host: Host, subuid: int) -> None:
    """Deletes all snapshots of a person, and their folder; LabhostError. Nothing if there is no folder."""
    if host.config.snapshots.folder is None or not subuid:
        return
    with _server(host) as server:
        if str(subuid) not in os.listdir(server):
            return
        with _opened(host, subuid) as folder:
            for name in os.listdir(folder):
                _unlink(folder, name)
        os.rmdir(str(subuid), dir_fd=server)
        os.fsync(server)


@contextmanager
def open_verified(host: Host, manifest: Manifest) -> Iterator[IO[bytes]]:
    """The archive, after its checksum was verified; LabhostError."""
    text = f"the snapshot {manifest.name} is damaged; nothing was changed. Choose another one"
    damaged = LabhostError(text, reason="snapshot_damaged", name=manifest.name)
    with _opened(host, manifest.subuid) as folder:
        try:
            stream = _open_file(folder, f"{manifest.name}{ARCHIVE}")
        except OSError as error:
            raise damaged from error
    with stream:
        if files.sha256_of(stream) != manifest.sha256:
            raise damaged
        yield stream


def _path(host: Host) -> Path:
    if host.config.snapshots.folder is None:
        text = "this server has no snapshot folder; ask the lab's staff to set one: setup-gpu-server.bash --snapshots"
        raise Refused(text, reason="snapshots_disabled")
    return host.config.snapshots.folder / host.config.server.name


@contextmanager
def _server(host: Host) -> Iterator[int]:
    """A descriptor of this server's folder; LabhostError unless it is there and root's own."""
    path = _path(host)
    try:
        opened = openat2.directory(path)
    except FileNotFoundError as error:
        text = f"the snapshot folder {path} is missing; ask the lab's staff whether it is mounted"
        raise LabhostError(text, reason="snapshot_folder_not_mounted", path=str(path)) from error
    except OSError as error:
        raise _not_private(path) from error
    with opened as fd:
        _check_private(fd, path)
        yield fd


@contextmanager
def _opened(host: Host, subuid: int) -> Iterator[int]:
    """A descriptor of the person's folder, created if missing; LabhostError unless it is root's own."""
    path = _path(host) / str(subuid)
    with _server(host) as server:
        with suppress(FileExistsError):
            os.mkdir(path.name, 0o700, dir_fd=server)
        try:
            opened = openat2.subdirectory(server, path.name)
        except LabhostError as error:
            raise _not_private(path) from error
        with opened as fd:
            _check_private(fd, path)
            yield fd


def _check_private(fd: int, path: Path) -> None:
    if not _is_private(os.fstat(fd)):
        raise _not_private(path)


def _is_private(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _not_private(path: Path) -> Refused:
    text = f"{path} must be a folder of root alone: no link, chown root, chmod 0700"
    return Refused(text, reason="snapshot_folder_not_private", path=str(path))


def _open_file(folder: int, name: str) -> IO[bytes]:
    """OSError unless it is a regular file."""
    fd = openat2.open_at(folder, name, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{name} is not a file")
    return open(fd, "rb")


def _unlink(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _load(folder: int, name: str, subuid: int) -> Manifest | None:
    """None if there is no manifest, or if it is not a valid one of this person's snapshot."""
    try:
        with _open_file(folder, name) as stream:
            value = json.loads(stream.read(MANIFEST_MOST))
        found = Manifest(**known_fields(Manifest, value))
        known = found.storage == "dir" or (found.storage == "overlay" and VERSION.fullmatch(found.template))
        ours = NAME.fullmatch(found.name) and (found.subuid, f"{found.name}.json") == (subuid, name)
        numbers = type(found.unpacked) is type(found.size) is int and 0 <= found.created_at < 2**40
        return found if known and ours and numbers and min(found.unpacked, found.size) >= 0 else None
    except (OSError, TypeError, ValueError, RecursionError):
        return None
