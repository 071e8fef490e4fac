"""Snapshots as files: FOLDER/SERVER/NAME/SNAPSHOT.tar.zst, with a SNAPSHOT.json beside it that says what it is.

The .json comes last and goes first, so a snapshot without one is debris. The folder is usually a mounted NAS:
SERVER is made by set-up, and where it is missing nothing is mounted.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from labhost.errors import LabhostError, Refused
from labhost.host.config import Host
from labhost.system import files
from labhost.system.names import check_name, is_name, printable

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
VERSION = re.compile(r"[0-9a-f]{12}", re.ASCII)
CHUNK = 1 << 20


@dataclass(frozen=True)
class Manifest:
    name: str
    user: str
    server: str
    made: float  # seconds since the epoch
    storage: str  # the driver: `dir` has all files, `overlay` what differs from the template
    template: str  # its version; empty for `dir`, which needs none
    unpacked: int  # bytes
    size: int
    sha256: str


def check_snapshot_name(text: str) -> str:
    """The name of a snapshot, or Refused."""
    if not NAME.fullmatch(text):
        raise Refused(f"{printable(text, 40)!r} is not a snapshot's name: letters, digits, _ - and ., at most 64")
    return text


def folder(host: Host, user: str) -> Path:
    """The person's own folder of snapshots, made if need be; LabhostError says why there is none."""
    path = _server(host) / check_name(user)
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def prepare(host: Host) -> None:
    """Set-up's part: the folder of this server. Refused if somebody else could write above it."""
    if host.config.snapshots.folder is None:
        return
    if not host.config.snapshots.folder.is_dir():
        raise Refused(f"the folder of snapshots {host.config.snapshots.folder} does not exist; mount or make it")
    path = host.config.snapshots.folder / host.config.server.name
    path.mkdir(mode=0o700, exist_ok=True)
    status = os.lstat(path)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise Refused(f"{path} must belong to root alone: chown root, chmod 0700")


def list_snapshots(host: Host, user: str) -> list[Manifest]:
    """The person's snapshots, the oldest first."""
    found = (_load(path, user) for path in folder(host, user).glob("*.json"))
    return sorted((one for one in found if one is not None), key=lambda one: (one.created_at, one.name))


def find(host: Host, user: str, name: str) -> Manifest:
    found = _load(folder(host, user) / f"{check_snapshot_name(name)}.json", user)
    if found is None:
        raise Refused(f"there is no snapshot {name}; see: ssh {host.config.server.name}-manage snapshots")
    return found


def templates_in_use(host: Host) -> set[str] | None:
    """Versions that this server's snapshots need; None if that cannot be known now."""
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
    """A file that becomes the archive of this name at the end, whole or not at all; the manifest is still missing."""
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
    path = folder(host, manifest.user) / f"{manifest.name}.json"
    files.write_atomic(path, json.dumps(asdict(manifest), indent=1) + "\n", mode=0o600)


def remove(host: Host, manifest: Manifest) -> None:
    path = folder(host, manifest.user) / f"{manifest.name}.json"
    path.unlink(missing_ok=True)
    files.sync_directory(path.parent)
    path.with_suffix(".tar.zst").unlink(missing_ok=True)


def remove_leftovers(host: Host, user: str) -> None:
    """What killed or failed snapshots left. The person's lock is held."""
    for path in folder(host, user).iterdir():
        whole = path.name.removesuffix(".tar.zst") + ".json"
        if path.name.startswith(".") or (path.name.endswith(".tar.zst") and not path.with_name(whole).exists()):
            path.unlink(missing_ok=True)


@contextmanager
def open_verified(host: Host, manifest: Manifest) -> Iterator[IO[bytes]]:
    """The archive, after its checksum was found right; LabhostError."""
    path = folder(host, manifest.user) / f"{manifest.name}.tar.zst"
    damaged = f"the snapshot {manifest.name} is damaged; nothing was changed. Choose another one"
    if not path.is_file():
        raise LabhostError(damaged)
    with open(path, "rb") as stream:
        digest = hashlib.sha256()
        while piece := stream.read(CHUNK):
            digest.update(piece)
        if digest.hexdigest() != manifest.sha256:
            raise LabhostError(damaged)
        yield stream


def _server(host: Host) -> Path:
    if host.config.snapshots.folder is None:
        raise Refused(
            "this server keeps no snapshots; ask the lab's staff for a folder: setup-gpu-server.bash --snapshots"
        )
    path = host.config.snapshots.folder / host.config.server.name
    if not path.is_dir():
        raise LabhostError(f"the folder of snapshots {path} is not there; ask the lab's staff whether it is mounted")
    return path


def _load(path: Path, user: str) -> Manifest | None:
    """None if there is none, or if it does not say what it must."""
    try:
        value = json.loads(files.read_text(path, 65536) or "")
        found = Manifest(**value)
        known = found.storage == "dir" or (found.storage == "overlay" and VERSION.fullmatch(found.template))
        right = known and NAME.fullmatch(found.name) and (found.user, found.name) == (user, path.stem)
        numbers = type(found.unpacked) is type(found.size) is int and 0 <= found.made < 2**40
        return found if right and numbers and min(found.unpacked, found.size) >= 0 else None
    except (ValueError, TypeError, LabhostError):
        return None
