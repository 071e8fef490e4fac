"""What stays of a removed person: her numbers, which nobody else ever gets here, and her files, for root alone.

The files lie on the file system of the homes, so that putting them aside is one rename whatever their size.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from labhost.accounts import id_map
from labhost.errors import LabhostError
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.system import files
from labhost.system.names import check_name, is_name

FOLDER = ".lab-iam-kept"
DELETE_SECONDS = 900


@dataclass(frozen=True)
class Tombstone:
    """A removed person: numbers, when (seconds since the epoch), and the folders with her files."""

    name: str
    uid: int = 0
    port: int = 0
    subuid: int = 0
    at: float = 0.0
    kept: list[str] = field(default_factory=list)


def new_folder(host: Host, name: str) -> Path:
    """A new folder's name; made nowhere yet."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime())
    return host.paths.home / FOLDER / f"{check_name(name)}-{stamp}"


def move_aside(home: Path, target: Path) -> None:
    """Moves a home with all that is below it. Nothing is read or followed there."""
    if not home.exists():
        return
    below = mounts_below(home)
    if below:
        raise LabhostError(f"{below[0]} is mounted; unmount it")
    target.parent.mkdir(mode=0o700, exist_ok=True)
    target.parent.chmod(0o700)
    if target.exists():
        raise LabhostError(f"{home} and {target} both exist; look at them by hand")
    try:
        os.rename(home, target)
    except OSError as error:
        raise LabhostError(f"{home} cannot be moved to {target}: {error.strerror}") from error
    files.sync_directory(target.parent)


def delete(folder: Path, subuid: int) -> None:
    """Deletes a home: what the person's ids own is deleted by her ids, and root takes its own folders."""
    if not folder.exists():
        return
    below = mounts_below(folder)
    if below:
        raise LabhostError(f"{below[0]} is mounted; unmount it")
    if subuid:
        words = ["/usr/bin/find", ".", "-xdev", "-mindepth", "1", "-depth", "-delete"]
        id_map.run_in_map(subuid, folder, words, timeout=DELETE_SECONDS)
    files.remove_tree(folder)
    if folder.exists():
        raise LabhostError(f"{folder} cannot be deleted; look at it by hand")


def mounts_below(folder: Path) -> list[str]:
    """Mount points at or below `folder`, see proc(5) mountinfo; spaces in it are written as \\040."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    text = str(folder)
    return [point for point in points if point == text or point.startswith(text + "/")]


def record(host: Host, user: User) -> Tombstone:
    """Her tombstone, with the folders of earlier removals."""
    before = load(host, user.name)
    folders = list(before.kept_folders) if before is not None else []
    if user.kept_folder and user.kept_folder not in folders and Path(user.kept_folder).exists():
        folders.append(user.kept_folder)
    uid = user.uid or (before.uid if before is not None else 0)
    removed = Tombstone(user.name, uid, user.port, user.subuid, time.time(), folders)
    _save(host, removed)
    return removed


def load(host: Host, name: str) -> Tombstone | None:
    text = files.read_text(_file(host, name))
    if text is None:
        return None
    try:
        return Tombstone(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise LabhostError(f"{_file(host, name)} is damaged; look at it by hand") from error


def load_all(host: Host) -> list[Tombstone]:
    folder = host.paths.state / "removed"
    names = sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []
    return [removed for name in names if is_name(name) and (removed := load(host, name)) is not None]


def purge(host: Host, removed: Tombstone) -> Tombstone:
    """Deletes the kept files; the numbers stay noted."""
    for folder in removed.kept_folders:
        delete(Path(folder), removed.subuid)
    emptied = replace(removed, kept_folders=[])
    _save(host, emptied)
    return emptied


def _save(host: Host, removed: Tombstone) -> None:
    folder = host.paths.state / "removed"
    folder.mkdir(mode=0o700, exist_ok=True)
    files.write_atomic(_file(host, removed.name), json.dumps(asdict(removed)) + "\n", mode=0o600)


def _file(host: Host, name: str) -> Path:
    return host.paths.state / "removed" / f"{check_name(name)}.json"
