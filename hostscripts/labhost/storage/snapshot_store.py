"""Snapshots as files: FOLDER/SERVER/NAME/SNAPSHOT.tar.zst, described by a SNAPSHOT.json beside it.

The .json is written last and removed first, so an archive without one is a leftover. The folder is usually a mounted
NAS: set-up creates SERVER, and if SERVER is missing the NAS is not mounted.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from labhost.errors import LabhostError, Refused
from labhost.host import Host
from labhost.system import check_name, files, is_name, printable
from labhost.system.json_files import known_fields, load_object, save_object

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
VERSION = re.compile(r"[0-9a-f]{12}", re.ASCII)
CHUNK = 1 << 20


@dataclass(frozen=True)
class Manifest:
    name: str
    user: str
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


def folder(host: Host, user: str) -> Path:
    """The person's folder of snapshots, created if missing; LabhostError."""
    path = _server(host) / check_name(user)
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def prepare(host: Host) -> None:
    """Creates the folder of this server, for set-up. Refused if others could read or write it."""
    folder = host.config.snapshots.folder
    if folder is None:
        return
    if not folder.is_dir():
        text = f"the snapshot folder {folder} does not exist; mount or create it"
        raise Refused(text, reason="snapshot_folder_missing", path=str(folder))
    path = folder / host.config.server.name
    path.mkdir(mode=0o700, exist_ok=True)
    status = os.lstat(path)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        text = f"{path} must belong to root alone: chown root, chmod 0700"
        raise Refused(text, reason="snapshot_folder_not_private", path=str(path))


def list_snapshots(host: Host, user: str) -> list[Manifest]:
    """The person's snapshots, oldest first."""
    found = (_load(path, user) for path in folder(host, user).glob("*.json"))
    return sorted((one for one in found if one is not None), key=lambda one: (one.created_at, one.name))


def find(host: Host, user: str, name: str) -> Manifest:
    found = _load(folder(host, user) / f"{check_snapshot_name(name)}.json", user)
    if found is None:
        text = f"there is no snapshot {name}; see: ssh {host.config.server.name}-manage snapshots"
        raise Refused(text, reason="no_snapshot", name=name)
    return found


def templates_in_use(host: Host) -> set[str] | None:
    """Versions that this server's snapshots need; None if that is unknown now."""
    if host.config.snapshots.folder is None:
        return set()
    try:
        server = _server(host)
        people = [path.name for path in server.iterdir() if is_name(path.name)]
        return {one.template for name in people for one in list_snapshots(host, name) if one.storage == "overlay"}
    except (LabhostError, OSError):
        return None


@contextmanager
def open_new(host: Host, user: str, name: str) -> Iterator[IO[bytes]]:
    """A file that becomes the archive of this name at the end, whole or not at all; `publish` adds its manifest."""
    target = folder(host, user) / f"{name}.tar.zst"
    temporary = target.with_name(f".{name}.tar.zst.new")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    files.sync_directory(target.parent)


def publish(host: Host, manifest: Manifest) -> None:
    save_object(folder(host, manifest.user) / f"{manifest.name}.json", asdict(manifest))


def remove(host: Host, manifest: Manifest) -> None:
    path = folder(host, manifest.user) / f"{manifest.name}.json"
    path.unlink(missing_ok=True)
    files.sync_directory(path.parent)
    path.with_suffix(".tar.zst").unlink(missing_ok=True)


def remove_leftovers(host: Host, user: str) -> None:
    """Removes what killed or failed snapshots left. The person's lock must be held."""
    for path in folder(host, user).iterdir():
        manifest = path.name.removesuffix(".tar.zst") + ".json"
        if path.name.startswith(".") or (path.name.endswith(".tar.zst") and not path.with_name(manifest).exists()):
            path.unlink(missing_ok=True)


@contextmanager
def open_verified(host: Host, manifest: Manifest) -> Iterator[IO[bytes]]:
    """The archive, after its checksum was verified; LabhostError."""
    path = folder(host, manifest.user) / f"{manifest.name}.tar.zst"
    text = f"the snapshot {manifest.name} is damaged; nothing was changed. Choose another one"
    damaged = LabhostError(text, reason="snapshot_damaged", name=manifest.name)
    if not path.is_file():
        raise damaged
    with open(path, "rb") as stream:
        if files.sha256_of(stream) != manifest.sha256:
            raise damaged
        yield stream


def _server(host: Host) -> Path:
    if host.config.snapshots.folder is None:
        text = "this server has no snapshot folder; ask the lab's staff to set one: setup-gpu-server.bash --snapshots"
        raise Refused(text, reason="snapshots_disabled")
    path = host.config.snapshots.folder / host.config.server.name
    if not path.is_dir():
        text = f"the snapshot folder {path} is missing; ask the lab's staff whether it is mounted"
        raise LabhostError(text, reason="snapshot_folder_not_mounted", path=str(path))
    return path


def _load(path: Path, user: str) -> Manifest | None:
    """None if there is no manifest, or if it is not a valid one of this person's snapshot."""
    try:
        found = Manifest(**known_fields(Manifest, load_object(path, 65536) or {}))
        known = found.storage == "dir" or (found.storage == "overlay" and VERSION.fullmatch(found.template))
        ours = NAME.fullmatch(found.name) and (found.user, found.name) == (user, path.stem)
        numbers = type(found.unpacked) is type(found.size) is int and 0 <= found.created_at < 2**40
        return found if known and ours and numbers and min(found.unpacked, found.size) >= 0 else None
    except (TypeError, LabhostError):
        return None
