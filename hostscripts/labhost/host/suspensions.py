"""Who is suspended on this server: a small file per person, written without their lock, which they may hold.

It stands beside the person's state file, so that no command that still runs for them can overwrite it.
"""

import os
from pathlib import Path

from labhost.errors import LabhostError
from labhost.host.config import Host
from labhost.system import check_name, is_name
from labhost.system.json_files import load_object, save_object

UNKNOWN = 2**53  # the revision of a damaged mark: it is not released by a push


def suspend(host: Host, name: str, revision: int) -> None:
    """Mark the person until a push of a later revision has keys of theirs."""
    save_object(_file(host, name), {"revision": revision})


def release(host: Host, name: str) -> None:
    _file(host, name).unlink(missing_ok=True)


def lower(host: Host, revision: int) -> None:
    """Set later marks to this revision, when a portal with lower numbers has replaced the past of this server."""
    for name, marked in load_all(host).items():
        if revision < marked < UNKNOWN:
            suspend(host, name, revision)


def is_suspended(host: Host, name: str) -> bool:
    return _file(host, name).exists()


def load_all(host: Host) -> dict[str, int]:
    """Name to the revision at which they were suspended."""
    folder = host.paths.state / "suspended"
    found = os.listdir(folder) if folder.is_dir() else []
    names = (text[:-5] for text in sorted(found) if text.endswith(".json"))
    return {name: _revision(host, name) for name in names if is_name(name)}


def _revision(host: Host, name: str) -> int:
    try:
        revision = (load_object(_file(host, name)) or {}).get("revision")
    except LabhostError:
        return UNKNOWN
    return revision if type(revision) is int else UNKNOWN


def _file(host: Host, name: str) -> Path:
    return host.paths.state / "suspended" / f"{check_name(name)}.json"
