"""What remains of a removed person: the numbers, which nobody else ever gets here, and the files, for root alone.

It belongs to a first subordinate id: a name may be somebody else's later, who inherits none of it. The files stay on
the file system of the homes, so moving them aside is one rename, whatever their size.
"""

import os
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from labhost.accounts import id_map
from labhost.errors import LabhostError
from labhost.host import Host, User
from labhost.system import check_name, files, is_name
from labhost.system.json_files import damaged, known_fields, load_object, save_object

FOLDER = ".lab-iam-kept"
DELETE_SECONDS = 900


@dataclass(frozen=True)
class Tombstone:
    """A removed person: numbers, when (seconds since the epoch), and the folders with the files."""

    name: str
    uid: int = 0
    port: int = 0
    subuid: int = 0
    at: float = 0.0
    kept_folders: list[str] = field(default_factory=list)


def new_folder(host: Host, name: str) -> Path:
    """A path for the files of somebody who is being removed; nothing is created."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime())
    return host.paths.home / FOLDER / f"{check_name(name)}-{stamp}"


def move_aside(home: Path, target: Path) -> None:
    """Moves a home with everything in it. Nothing in it is read or followed."""
    if not home.exists():
        return
    _check_unmounted(home)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    target.parent.chmod(0o700)
    try:
        os.rename(home, target)
    except OSError as error:
        problem = str(error.strerror)
        text = f"{home} cannot be moved to {target}: {problem}; inspect both by hand"
        raise LabhostError(text, reason="files_not_moved", path=str(home), problem=problem) from error
    files.sync_directory(target.parent)


def delete(folder: Path, subuid: int) -> None:
    """Deletes a home: what the person's ids own with these ids, then root's own folders."""
    if not folder.exists():
        return
    _check_unmounted(folder)
    if subuid:
        command = ["/usr/bin/find", ".", "-mindepth", "1", "-depth", "-delete"]
        id_map.run(subuid, folder, command, timeout=DELETE_SECONDS)
    files.remove_tree(folder)
    if folder.exists():
        text = f"{folder} cannot be deleted: some files are left; inspect it by hand"
        raise LabhostError(text, reason="files_not_deleted", path=str(folder), problem="some files are left")


def mounts_below(folder: Path) -> list[str]:
    """Mount points at or below `folder`, see proc(5) mountinfo; spaces in them are written as \\040."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point == str(folder) or point.startswith(f"{folder}/")]


def _check_unmounted(folder: Path) -> None:
    for point in mounts_below(folder):
        raise LabhostError(f"{point} is mounted; unmount it", reason="files_mounted", path=point)


def record(host: Host, user: User) -> Tombstone:
    """Saves the person's tombstone, with the folders of earlier removals."""
    before = load(host, user.name, user.subuid) or Tombstone(user.name)
    folders = list(before.kept_folders)
    if user.kept_folder and user.kept_folder not in folders and Path(user.kept_folder).exists():
        folders.append(user.kept_folder)
    return _save(host, Tombstone(user.name, user.uid or before.uid, user.port, user.subuid, time.time(), folders))


def load(host: Host, name: str, subuid: int) -> Tombstone | None:
    """LabhostError if the file is damaged."""
    path = _file(host, name, subuid)
    value = load_object(path)
    if value is None:
        return None
    if (value.get("name"), value.get("subuid")) != (name, subuid):
        raise damaged(path)
    return Tombstone(**known_fields(Tombstone, value))


def load_all(host: Host) -> list[Tombstone]:
    folder = host.paths.state / "removed"
    parts = sorted(path.name.split(".") for path in folder.glob("*.*.json")) if folder.is_dir() else []
    named = [(name, int(subuid)) for name, subuid, *_ in parts if is_name(name) and subuid.isdecimal()]
    return [removed for name, subuid in named if (removed := load(host, name, subuid)) is not None]


def find_last(host: Host, name: str) -> Tombstone | None:
    """That of the person who last had this name here."""
    found = [removed for removed in load_all(host) if removed.name == check_name(name)]
    return max(found, key=lambda removed: removed.at, default=None)


def purge(host: Host, removed: Tombstone) -> Tombstone:
    """Deletes the kept files; the numbers stay recorded."""
    for folder in removed.kept_folders:
        delete(Path(folder), removed.subuid)
    return _save(host, replace(removed, kept_folders=[]))


def _save(host: Host, removed: Tombstone) -> Tombstone:
    save_object(_file(host, removed.name, removed.subuid), asdict(removed))
    return removed


def _file(host: Host, name: str, subuid: int) -> Path:
    return host.paths.state / "removed" / f"{check_name(name)}.{subuid}.json"
