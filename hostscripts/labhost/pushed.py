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
from typing import Any, NamedTuple

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
    """What is applied, kept between the requests of a session. What another session has added is read, and no more."""

    def __init__(self) -> None:
        self._applied = Applied()
        self._signature: tuple[_Signature, _Signature] | None = None
        self._mark = ""  # of everybody's file; the log that continues it begins with the same
        self._read_to = 0  # how much of the log is in `_applied`
        self._log_is_good = False  # another line may follow

    def load(self, host: Host) -> Applied:
        while (signature := _signature(host)) != self._signature:
            if self._signature is None or signature[0] != self._signature[0] or self._is_other_log(signature[1]):
                self._read_everybody(host)
            self._read_log(host)
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
        whole, log = _signature(host)
        is_long = log.size > max(LOG_LEAST, whole.size // 2)
        if not (self._mark and self._log_is_good) or is_long or 2 * len(changed) > len(applied.users):
            self._write_everybody(host, applied)
        else:
            self._append(host, _record(applied, changed), lasting=True)
        self._applied = applied

    def _is_other_log(self, log: "_Signature") -> bool:
        """Not the one of which a part is known already, grown longer."""
        known = self._signature[1] if self._signature else _NONE
        return bool(self._read_to) and (log.inode != known.inode or log.size < self._read_to)

    def _read_everybody(self, host: Host) -> None:
        value = load_object(_everybody(host))
        try:
            self._applied = Applied() if value is None else _applied(value)
            self._mark = "" if value is None else str(value.get("mark", ""))
        except _DAMAGE as error:
            raise LabhostError(f"{_everybody(host)} is damaged; remove it and push the keys again") from error
        self._read_to, self._log_is_good = 0, False

    def _read_log(self, host: Host) -> None:
        data = _tail(_log(host), self._read_to)
        if not self._read_to:
            head = _head(self._mark).encode()
            if not data.startswith(head):
                return  # there is none, or it continues another file
            self._read_to, data = len(head), data[len(head) :]
        self._log_is_good, old = True, self._applied
        now = self._applied = replace(old, users=dict(old.users), ids=dict(old.ids))
        for line in data.splitlines(keepends=True):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("a power cut tore it")
                _go_on(now, json.loads(line))
            except _DAMAGE:  # everybody's keys set it right
                now.complete = self._log_is_good = False
                return
            self._read_to += len(line)

    def _start_log(self, host: Host, applied: Applied) -> None:
        if _log(host).exists():  # of another file, or torn
            self._write_everybody(host, applied)
        files.write_atomic(_log(host), _head(self._mark), mode=0o600)
        self._read_to, self._log_is_good = len(_head(self._mark)), True

    def _append(self, host: Host, record: Mapping[str, Any], *, lasting: bool) -> None:
        fd = os.open(_log(host), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            line = (json.dumps(record, separators=(",", ":")) + "\n").encode()
            try:
                files.write_all(fd, line)
                if lasting:
                    os.fsync(fd)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        self._signature, self._read_to = _signature(host), size + len(line)

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
        self._read_to, self._log_is_good, self._signature = 0, False, None
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


def _go_on(now: Applied, record: Mapping[str, Any]) -> None:
    """Make it what holds after a line of the log; one of _DAMAGE, and then it is what it was."""
    if "begun" in record:
        now.revision, now.digest = max(now.revision, record["begun"]), record["digest"]
        now.complete = False
        return
    users = {name: None if entries is None else _keys(entries) for name, entries in record["users"].items()}
    ids, short = dict(record["ids"]), [record[name] for name in ("revision", "digest", "complete", "failed")]
    now.revision, now.digest, now.complete, now.failed = short
    _put(now.users, users)
    _put(now.ids, ids)


def _put(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    """None: it is gone."""
    for name, value in values.items():
        if value is None:
            into.pop(name, None)
        else:
            into[name] = value


def _head(mark: str) -> str:
    return json.dumps({"continues": mark}) + "\n"


class _Signature(NamedTuple):
    """Of a file: changes whenever what is in it may have changed."""

    inode: tuple[int, int]
    size: int
    times: tuple[int, int]


_NONE = _Signature((0, 0), 0, (0, 0))


def _signature(host: Host) -> tuple[_Signature, _Signature]:
    return _signature_of(_everybody(host)), _signature_of(_log(host))


def _signature_of(path: Path) -> _Signature:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return _NONE
    return _Signature((found.st_dev, found.st_ino), found.st_size, (found.st_mtime_ns, found.st_ctime_ns))


def _tail(path: Path, start: int) -> bytes:
    """What stands in the file from there on; LabhostError if that is far too much."""
    try:
        with open(path, "rb") as stream:
            stream.seek(start)
            data = stream.read(STATE_MOST + 1)
    except FileNotFoundError:
        return b""
    if len(data) > STATE_MOST:
        raise LabhostError(f"{path} is longer than {STATE_MOST} bytes; remove it and push the keys again")
    return data


def _everybody(host: Host) -> Path:
    return host.paths.state / "keys.json"


def _log(host: Host) -> Path:
    return host.paths.state / "keys.log"
