"""The keys that were pushed last, on the disk: everybody's in one file, and a log of what has changed since.

A change then costs a line, not everybody's keys again. The log names the file that it continues, so that one which a
kill left behind is never read into another. The keys lock must be held by whoever writes.
"""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from labhost.errors import LabhostError
from labhost.host.config import Host
from labhost.keys.public_keys import KeyMap, Keys, PublicKey, as_entry
from labhost.system import files
from labhost.system.json_files import MAX_SIZE, load_object

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
    users: KeyMap = field(default_factory=KeyMap)
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
        self._append(host, {"begun": revision, "digest": digest}, durable=False)
        self._applied = replace(before, revision=max(before.revision, revision), digest=digest, complete=False)

    def save(self, host: Host, applied: Applied, among: Collection[str] | None = None) -> None:
        """All that was begun is written. `among`: only these people may be others now; None: all."""
        before = self.load(host)
        changed = _changed(before, applied, among)
        whole, log = _signature(host)
        is_long = log.size > max(LOG_LEAST, whole.size // 2)
        if not (self._mark and self._log_is_good) or is_long or 2 * len(changed) > len(applied.users):
            self._write_everybody(host, applied)
        else:
            self._append(host, _record(applied, changed), durable=True)
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
        self._log_is_good, lines = True, _Lines(self._applied)
        for line in data.splitlines(keepends=True):
            try:
                lines.add(line)
            except _DAMAGE:  # everybody's keys set it right
                self._log_is_good = lines.complete = False
                break
            self._read_to += len(line)
        self._applied = lines.result()

    def _start_log(self, host: Host, applied: Applied) -> None:
        if _log(host).exists():  # of another file, or torn
            self._write_everybody(host, applied)
        files.write_atomic(_log(host), _head(self._mark), mode=0o600)
        self._read_to, self._log_is_good = len(_head(self._mark)), True

    def _append(self, host: Host, record: Mapping[str, Any], *, durable: bool) -> None:
        fd = os.open(_log(host), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            line = (json.dumps(record, separators=(",", ":")) + "\n").encode()
            try:
                files.write_all(fd, line)
                if durable:
                    os.fsync(fd)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        self._signature, self._read_to = _signature(host), size + len(line)

    def _write_everybody(self, host: Host, applied: Applied) -> None:
        self._mark = os.urandom(8).hex()
        head = {
            "mark": self._mark,
            "revision": applied.revision,
            "digest": applied.digest,
            "complete": applied.complete,
            "failed": applied.failed,
            "ids": applied.ids,
        }
        text = json.dumps(head).removesuffix("}") + f', "users": {applied.users.canonical()}}}\n'
        self._read_to, self._log_is_good, self._signature = 0, False, None
        files.write_atomic(_everybody(host), text, mode=0o600)
        _log(host).unlink(missing_ok=True)
        self._signature = _signature(host)


def _applied(value: Mapping[str, Any]) -> Applied:
    users = KeyMap({name: _keys(entries) for name, entries in value["users"].items()})
    failed, ids = value.get("failed", []), value.get("ids", {})
    return Applied(value["revision"], value["digest"], value["complete"], users, failed, ids)


def _keys(entries: list[dict[str, str]]) -> Keys:
    return tuple(PublicKey(entry["type"], entry["blob"], entry["comment"]) for entry in entries)


def _changed(before: Applied, now: Applied, among: Collection[str] | None) -> list[str]:
    """Whose keys or ids are others now."""
    names = before.users.keys() | now.users.keys() if among is None else among
    return [name for name in sorted(names) if _of(before, name) != _of(now, name)]


def _of(applied: Applied, name: str) -> tuple[Keys | None, int | None]:
    return applied.users.get(name), applied.ids.get(name)


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


class _Lines:
    """What holds after some lines of the log."""

    def __init__(self, before: Applied) -> None:
        self._before = before
        self.revision, self.digest, self.complete, self.failed = _short(before.__dict__)
        self._users: dict[str, Keys | None] = {}
        self._ids: dict[str, int | None] = {}

    def add(self, line: bytes) -> None:
        """One of _DAMAGE, and then the line has changed nothing."""
        if not line.endswith(b"\n"):
            raise ValueError("a power cut tore it")
        record = json.loads(line)
        if "begun" in record:
            self.revision, self.digest = max(self.revision, record["begun"]), record["digest"]
            self.complete = False
            return
        users = {name: None if entries is None else _keys(entries) for name, entries in record["users"].items()}
        ids, short = dict(record["ids"]), _short(record)
        self._users.update(users)
        self._ids.update(ids)
        self.revision, self.digest, self.complete, self.failed = short

    def result(self) -> Applied:
        ids = {name: start for name, start in {**self._before.ids, **self._ids}.items() if start is not None}
        users = self._before.users.but(self._users)
        return Applied(self.revision, self.digest, self.complete, users, self.failed, ids)


def _short(record: Mapping[str, Any]) -> tuple[int, str, bool, list[str]]:
    return record["revision"], record["digest"], record["complete"], record["failed"]


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
            data = stream.read(MAX_SIZE + 1)
    except FileNotFoundError:
        return b""
    if len(data) > MAX_SIZE:
        raise LabhostError(f"{path} is longer than {MAX_SIZE} bytes; remove it and push the keys again")
    return data


def _everybody(host: Host) -> Path:
    return host.paths.state / "keys.json"


def _log(host: Host) -> Path:
    return host.paths.state / "keys.log"
