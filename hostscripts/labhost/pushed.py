"""The keys that were pushed last, on the disk: everybody's in one file, and a log of what has changed since.

A change then costs a line, not everybody's keys again. The log names the file that it continues, so that one which a
kill left behind is never read into another. The keys lock must be held by whoever writes.
"""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import files
from .config import Host
from .errors import LabhostError
from .keys import Keys, PublicKey, as_entry, canonical_map
from .state import STATE_MOST, load_object

LOG_LEAST = 64 * 1024  # bytes that the log may have at any rate, before everybody's keys are written anew
_DAMAGE = (KeyError, AttributeError, TypeError, ValueError)


@dataclass
class Applied:
    """`complete`: were all files written, or did a kill come between?

    `failed` holds the names of people whose files could not be written; the next push tries them again. `ids`: the
    first of each person's subordinate ids, as far as a push has told: a name may come to somebody new, they do not.
    """

    revision: int = 0
    digest: str = ""
    complete: bool = True
    users: dict[str, Keys] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)


def load(host: Host) -> Applied:
    """What was applied last, or was being applied. Each key was judged before it was saved, by root and for root."""
    return Memory().load(host)


class Memory:
    """What is applied, kept between the requests of a session for as long as the files are the same."""

    def __init__(self) -> None:
        self._applied = Applied()
        self._signature: tuple[int, ...] = ()
        self._mark = ""  # of everybody's file; the log that continues it begins with the same
        self._log_is_good = False  # another line may follow

    def load(self, host: Host) -> Applied:
        while (signature := _signature(host)) != self._signature:
            self._read(host)
            self._signature = signature  # once more if somebody wrote meanwhile: the two files belong together
        return self._applied

    def begin(self, host: Host, revision: int, digest: str) -> None:
        """Noted before the first file is written: after a kill a late, older push is still refused.

        It is not brought to the disk: after a power cut the push is made again.
        """
        before = self.load(host)
        if not self._log_is_good:
            self._start_log(host, before)
        self._append(host, {"begun": revision, "digest": digest}, lasting=False)
        self._applied = replace(before, revision=max(before.revision, revision), digest=digest, complete=False)

    def save(self, host: Host, applied: Applied) -> None:
        """All that was begun is written."""
        before = self.load(host)
        changed = _changed(before, applied)
        is_long = _size(_log(host)) > max(LOG_LEAST, _size(_everybody(host)) // 2)
        if not (self._mark and self._log_is_good) or is_long or 2 * len(changed) > len(applied.users):
            self._write_everybody(host, applied)
        else:
            self._append(host, _record(applied, changed), lasting=True)
        self._applied = applied

    def _read(self, host: Host) -> None:
        value = load_object(_everybody(host))
        try:
            self._applied = Applied() if value is None else _applied(value)
            self._mark = "" if value is None else str(value.get("mark", ""))
        except _DAMAGE as error:
            raise LabhostError(f"{_everybody(host)} is damaged; remove it and push the keys again") from error
        self._log_is_good = False
        head, *lines = (files.read_text(_log(host), STATE_MOST) or "").split("\n")
        if head != _head(self._mark).rstrip("\n") or not lines:
            return
        try:
            for line in lines[:-1]:
                self._applied = _continued(self._applied, json.loads(line))
            self._log_is_good = not lines[-1]
        except _DAMAGE:
            pass
        if not self._log_is_good:  # a power cut in the middle of a line: everybody's keys set it right
            self._applied = replace(self._applied, complete=False)

    def _start_log(self, host: Host, applied: Applied) -> None:
        if _log(host).exists():  # of another file, or torn
            self._write_everybody(host, applied)
        files.write_atomic(_log(host), _head(self._mark), mode=0o600)
        self._log_is_good = True

    def _append(self, host: Host, record: Mapping[str, Any], *, lasting: bool) -> None:
        fd = os.open(_log(host), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            try:
                files.write_all(fd, (json.dumps(record, separators=(",", ":")) + "\n").encode())
                if lasting:
                    os.fsync(fd)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        self._signature = _signature(host)

    def _write_everybody(self, host: Host, applied: Applied) -> None:
        self._mark = secrets.token_hex(8)
        head = {
            "mark": self._mark,
            "revision": applied.revision,
            "digest": applied.digest,
            "complete": applied.complete,
            "failed": applied.failed,
            "ids": applied.ids,
        }
        text = json.dumps(head).removesuffix("}") + f', "users": {canonical_map(applied.users)}}}\n'
        self._log_is_good = False
        files.write_atomic(_everybody(host), text, mode=0o600)
        _log(host).unlink(missing_ok=True)
        self._signature = _signature(host)


def _applied(value: Mapping[str, Any]) -> Applied:
    users = {name: _keys(entries) for name, entries in value["users"].items()}
    failed, ids = value.get("failed", []), value.get("ids", {})
    return Applied(value["revision"], value["digest"], value["complete"], users, failed, ids)


def _keys(entries: list[dict[str, str]]) -> Keys:
    return Keys(PublicKey(entry["type"], entry["blob"], entry["comment"]) for entry in entries)


def _changed(before: Applied, now: Applied) -> list[str]:
    """Whose keys or ids are others now."""
    users, ids = before.users, before.ids
    names = [name for name, keys in now.users.items() if users.get(name) is not keys and users.get(name) != keys]
    names += [name for name, start in now.ids.items() if ids.get(name) != start]
    return sorted({*names, *(users.keys() - now.users.keys())})


def _record(applied: Applied, changed: list[str]) -> dict[str, Any]:
    """A line of the log: people whose keys are others now (None: none any more), and the whole of what is short."""
    users = {name: applied.users.get(name) for name in changed}
    return {
        "revision": applied.revision,
        "digest": applied.digest,
        "complete": applied.complete,
        "failed": applied.failed,
        "ids": {name: applied.ids.get(name) for name in changed},
        "users": {name: None if keys is None else [as_entry(key) for key in keys] for name, keys in users.items()},
    }


def _continued(before: Applied, record: Mapping[str, Any]) -> Applied:
    """What holds after a line of the log."""
    if "begun" in record:
        revision = max(before.revision, record["begun"])
        return replace(before, revision=revision, digest=record["digest"], complete=False)
    users, ids = before.users | record["users"], before.ids | record["ids"]
    for name, entries in record["users"].items():
        if entries is None:
            del users[name]
        else:
            users[name] = _keys(entries)
    ids = {name: start for name, start in ids.items() if start is not None}
    return Applied(record["revision"], record["digest"], record["complete"], users, record["failed"], ids)


def _head(mark: str) -> str:
    return json.dumps({"continues": mark}) + "\n"


def _signature(host: Host) -> tuple[int, ...]:
    """Changes whenever what is on the disk may have changed."""
    found: list[int] = []
    for path in (_everybody(host), _log(host)):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            found.append(0)
            continue
        found += [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return tuple(found)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _everybody(host: Host) -> Path:
    return host.paths.state / "keys.json"


def _log(host: Host) -> Path:
    return host.paths.state / "keys.log"
