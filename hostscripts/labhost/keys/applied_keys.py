"""The keys that were pushed last, in an SQLite database: one row a person, and one row about the push.

Writers hold the keys lock; readers need no lock. A push is noted twice: before its first file is written
(`begin`), so that an older push is refused even after a kill, and after the last one (`save`). On a full or read-only
disk the database can be read only, and revision_note.py has the revision.
"""

import errno
import json
import os
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labhost.errors import LabhostError
from labhost.host import Host
from labhost.keys import revision_note
from labhost.keys.public_keys import KeyMap, Keys, PublicKey, canonical_keys

if TYPE_CHECKING:
    import sqlite3

BUSY_SECONDS = 10.0
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE people (
    name TEXT PRIMARY KEY,
    first_subid INTEGER,     -- NULL: not known
    keys TEXT,               -- canonical JSON; NULL: no longer in the push
    changed_at INTEGER NOT NULL  -- push.sequence at the last change
) WITHOUT ROWID;
CREATE INDEX people_changed_at ON people (changed_at);
CREATE TABLE push (
    revision INTEGER NOT NULL,
    id TEXT NOT NULL,         -- of the revision; '': none
    digest TEXT NOT NULL,
    complete INTEGER NOT NULL,
    failed TEXT NOT NULL,     -- JSON: a list of names
    sequence INTEGER NOT NULL,   -- counts the saved pushes
    pruned_at INTEGER NOT NULL   -- sequence at which rows were deleted: who knows an older state reads everything
);
INSERT INTO push VALUES (0, '', '', 1, '[]', 0, 0);
PRAGMA user_version = 1;
COMMIT;
"""


@dataclass
class Applied:
    """`complete` is False while a push is being written, and after a kill in it.

    `failed`: people whose files could not be written; the next push tries them again. `ids`: each person's first
    subordinate id, if a push named it. It identifies the owner of the keys, since names may pass to somebody else.
    `id`: the random id of the revision, see history.py.
    """

    revision: int = 0
    digest: str = ""
    complete: bool = True
    users: KeyMap = field(default_factory=KeyMap)
    failed: list[str] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    id: str = ""


def load(host: Host) -> Applied:
    """What was applied last, or is being applied. All keys were checked before they were saved."""
    with closing(Memory(read_only=True)) as memory:
        return memory.load(host)


class Memory:
    """The applied keys between the requests of a session, which reads only what other sessions have changed."""

    def __init__(self, *, read_only: bool = False) -> None:
        import sqlite3  # here, since a start of a container imports this module, but rarely needs the database

        self._sqlite, self._read_only = sqlite3, read_only
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode of what the connection has open
        self._forget()

    def load(self, host: Host) -> Applied:
        path = path_of(host)
        if self._connection is not None and self._is_frozen:  # perhaps there is room again
            self.close()
        if self._connection is not None and self._file != _identity(path):  # somebody removed it
            _abandoned.append(self._connection)
            self._forget()
        if self._connection is not None or path.exists():
            with self._errors(path):
                self._read(self._connection or self._connect(path))
        note = revision_note.read(host)
        if note.follows(self._applied.revision, self._applied.id):
            return replace(self._applied, revision=note.revision, digest=note.digest, id=note.id, complete=False)
        return self._applied

    def begin(self, host: Host, applied: Applied) -> None:
        """Note a push before its first file is written. It is not synced: after a power cut the push is repeated."""
        before = self.load(host)
        after = replace(before, revision=applied.revision, digest=applied.digest, id=applied.id, complete=False)
        self._write(host, after, [], saved=False, prune=False)
        revision_note.prepare(host)

    def save(self, host: Host, applied: Applied, among: Collection[str] | None = None) -> None:
        """Note that a push is written. `among`: only these people may have changed; None: anybody may have."""
        before = self.load(host)
        names = before.users.keys() | applied.users.keys() if among is None else among
        changed = [name for name in names if _row(before, name) != _row(applied, name)]
        self._write(host, applied, changed, saved=True, prune=among is None)

    def end(self) -> None:
        """Empty SQLite's log at the end of a session, so that readers need no room on the disk.

        Its connection is never closed: if somebody removed the database, that would remove the log of the new one.
        """
        if self._connection is not None:
            with suppress(self._sqlite.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Of a connection that writes nothing."""
        if self._connection is not None:
            self._connection.close()
        self._forget()

    def _forget(self) -> None:
        self._connection, self._file, self._is_frozen = None, None, False
        self._applied, self._sequence, self._version = Applied(), 0, -1

    def _connect(self, path: Path) -> "sqlite3.Connection":
        uri = path.as_uri() + ("?mode=ro" if self._read_only else "")
        connection = self._open(uri)
        try:
            is_new = connection.execute("PRAGMA user_version").fetchone() == (0,)
        except self._sqlite.OperationalError:
            log = Path(f"{path}-wal")
            if log.exists() and log.stat().st_size:
                raise
            # The disk is full or read-only: without an index of the empty log.
            connection = self._open(path.as_uri() + "?mode=ro&immutable=1")
            is_new, self._is_frozen = False, True
        if is_new and not self._read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
        self._connection, self._file = connection, _identity(path)
        return connection

    def _open(self, uri: str) -> "sqlite3.Connection":
        return self._sqlite.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)

    def _read(self, connection: "sqlite3.Connection") -> None:
        (version,) = connection.execute("PRAGMA data_version").fetchone()  # changes with the commits of others
        if version == self._version:
            return
        with _transaction(connection, "BEGIN"):
            if connection.execute("PRAGMA user_version").fetchone() == (0,):
                return  # killed while it was being created
            *short, failed, sequence, pruned_at = connection.execute("SELECT * FROM push").fetchone()
            is_known = 0 < self._sequence >= pruned_at
            before, since = (self._applied, self._sequence) if is_known else (Applied(), -1)
            changed = connection.execute("SELECT name, first_subid, keys FROM people WHERE changed_at > ?", (since,))
            rows = changed.fetchall()
        ids = before.ids | {name: first_subid for name, first_subid, _ in rows}
        users = before.users.with_changes({name: None if keys is None else _keys(keys) for name, _, keys in rows})
        revision, id_, digest, complete = short
        known_ids = {name: first_subid for name, first_subid in ids.items() if first_subid is not None}
        self._applied = Applied(revision, digest, bool(complete), users, json.loads(failed), known_ids, id_)
        self._sequence, self._version = sequence, version

    def _write(self, host: Host, applied: Applied, changed: Collection[str], *, saved: bool, prune: bool) -> None:
        path, sequence = path_of(host), self._sequence + saved
        with self._errors(path):
            if self._connection is None:
                _create(path)
            connection = self._connection or self._connect(path)
            connection.execute(f"PRAGMA synchronous = {'FULL' if saved else 'NORMAL'}")
            with _transaction(connection, "BEGIN IMMEDIATE"):
                if prune and connection.execute("DELETE FROM people WHERE keys IS NULL").rowcount:
                    connection.execute("UPDATE push SET pruned_at = ?", (sequence,))
                rows = [(name, *_row(applied, name), sequence) for name in changed]
                failed = json.dumps(applied.failed)
                connection.executemany("INSERT OR REPLACE INTO people VALUES (?, ?, ?, ?)", rows)
                connection.execute(
                    "UPDATE push SET revision = ?, id = ?, digest = ?, complete = ?, failed = ?, sequence = ?",
                    (applied.revision, applied.id, applied.digest, applied.complete, failed, sequence),
                )
        self._applied, self._sequence = applied, sequence

    @contextmanager
    def _errors(self, path: Path) -> Iterator[None]:
        try:
            yield
        except self._sqlite.OperationalError as error:
            if "disk is full" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise LabhostError(f"{path}: {error}", reason="os_error", path=str(path), detail=str(error)) from error
        except (self._sqlite.Error, ValueError, TypeError, KeyError, RecursionError) as error:
            text = f"{path} is damaged ({error}); remove {path}* and push the keys again"
            raise LabhostError(text, reason="keys_database_damaged", path=str(path), detail=str(error)) from error


# Connections to databases that somebody removed. To close one would remove the log of the new database.
_abandoned: list[Any] = []


@contextmanager
def _transaction(connection: "sqlite3.Connection", begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def path_of(host: Host) -> Path:
    return host.paths.state / "keys.sqlite3"


def _create(path: Path) -> None:
    """An empty file that only root can read. SQLite gives its log the same mode."""
    if not path.exists():
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)  # of a database that somebody removed
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(FileNotFoundError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


def _row(applied: Applied, name: str) -> tuple[int | None, str | None]:
    keys = applied.users.get(name)
    return applied.ids.get(name), None if keys is None else canonical_keys(keys)


def _keys(text: str) -> Keys:
    entries = json.loads(text)
    if not isinstance(entries, list):
        raise ValueError("the keys of a person are no list")
    return tuple(PublicKey(entry["type"], entry["blob"], entry["comment"]) for entry in entries)
