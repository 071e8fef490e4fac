"""Snapshots: packs the changed files of a container into the snapshot folder, and recovers a container from there."""

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import IO

from labhost.container import lifecycle, system_swap
from labhost.errors import LabhostError, Refused
from labhost.host import Host, User
from labhost.storage import drivers, snapshot_store, tar_listing, tree
from labhost.storage.snapshot_store import Manifest
from labhost.system import Account, Process, Progress, failpoints, log, spawn

LEVEL = "-3"


def create(host: Host, user: User, progress: Progress, name: str = "") -> None:
    """Create a snapshot; without a name it is named by the date. The container may run meanwhile."""
    name = snapshot_store.check_snapshot_name(name or time.strftime("%Y-%m-%d-%H%M%S"))
    with lifecycle.locked(host, user, "being snapshotted") as (user, account):
        driver = drivers.driver_of(host, user)
        driver.attach(user, account)
        snapshot_store.remove_leftovers(host, user.name)
        if any(one.name == name for one in snapshot_store.list_snapshots(host, user.name)):
            text = f"the snapshot {name} exists already; choose another name"
            raise Refused(text, reason="snapshot_exists", snapshot=name)
        unpacked = driver.size(user, account)
        progress.write(f"snapshot {name}: {_megabytes(unpacked)} to pack")
        tree.check_free_space(snapshot_store.folder(host, user.name), unpacked)
        size, sha256 = _pack(host, user, account, name)
        failpoints.hit("packed")
        what = (driver.name, driver.version(user), unpacked, size, sha256)
        snapshot_store.publish(host, Manifest(name, user.name, host.config.server.name, time.time(), *what))
        failpoints.hit("published")
        progress.write(f"snapshot {name} saved: {_megabytes(size)}; to recover it: recover {name}")
        for old in snapshot_store.list_snapshots(host, user.name)[: -host.config.snapshots.keep]:
            snapshot_store.remove(host, old)
            progress.write(f"snapshot {old.name} removed: the newest {host.config.snapshots.keep} are kept")
    log.write(f"{user.name}: snapshot {name}")


def recover(host: Host, user: User, progress: Progress, name: str) -> None:
    """Replace the root file system by a snapshot's; the old one is kept until the new one has started once."""
    snapshot_store.check_snapshot_name(name)
    with lifecycle.locked(host, user, "being recovered") as (user, account):
        driver = drivers.driver_of(host, user)
        driver.attach(user, account)
        driver.remove_leftovers(user, account)
        wanted = snapshot_store.find(host, user.name, name)
        if wanted.storage != driver.name:
            has, needed = wanted.storage, driver.name
            text = f"the snapshot {name} has storage {has}, your container {needed}; ask the lab's staff"
            raise Refused(text, reason="other_storage", snapshot=name, storage=has, container=needed)
        progress.write(f"checking the snapshot {name}: {_megabytes(wanted.size)}")
        tree.check_free_space(host.paths.home, wanted.unpacked)
        with snapshot_store.open_verified(host, wanted) as archive:
            _check_members(account, archive, name)
            progress.write("unpacking the snapshot")
            system = _unpack(host, user, account, archive, wanted.template)
        lifecycle.halt(host, user, account, progress)
        system_swap.swap(host, user, account, system)
    log.write(f"{user.name}: snapshot {name} recovered")
    progress.write(f"snapshot {name} recovered; your old container is kept until the first successful start")
    progress.write(f"next: ssh {host.config.server.name}-manage to start it")


def _pack(host: Host, user: User, account: Account, name: str) -> tuple[int, str]:
    """Writes the archive; returns its size in bytes and its SHA-256."""
    digest, size = hashlib.sha256(), 0
    with snapshot_store.open_new(host, user.name, name) as target:
        source = drivers.driver_of(host, user).archive(user, account)
        packer = spawn(["/usr/bin/zstd", "-q", "-T0", LEVEL, "-c"], account=account, stdin=source.stdout)
        errors = [_StderrReader(source), _StderrReader(packer)]
        try:
            assert source.stdout is not None and packer.stdout is not None
            source.stdout.close()
            while piece := packer.stdout.read(snapshot_store.CHUNK):
                target.write(piece)
                digest.update(piece)
                size += len(piece)
                failpoints.hit("packing")
        finally:
            packed, read = _end(packer), _end(source)  # in this order: tar waits for the packer
        # tar's 1: a file changed while it was read, as files of a running container do.
        if read not in (0, 1) or packed != 0:
            text = errors[0].text or errors[1].text or "tar was killed"
            raise LabhostError(f"the files cannot be packed: {text}", reason="packing_failed", detail=text)
    return size, digest.hexdigest()


def _spawn_unpacker(account: Account, archive: IO[bytes]) -> Process:
    os.lseek(archive.fileno(), 0, os.SEEK_SET)  # the position is shared: another process has read from it
    return spawn(["/usr/bin/zstd", "-dcq"], account=account, stdin=archive)


def _check_members(account: Account, archive: IO[bytes], name: str) -> None:
    """LabhostError if a member could do harm, or if the archive is incomplete."""
    reader = _spawn_unpacker(account, archive)
    lister = spawn(tar_listing.LIST_COMMAND, account=account, stdin=reader.stdout)
    errors = [_StderrReader(reader), _StderrReader(lister)]
    reason = ""
    try:
        assert reader.stdout is not None and lister.stdout is not None
        reader.stdout.close()
        while not reason and (line := lister.stdout.readline(65536)):
            reason = tar_listing.refusal_reason(line)
    finally:
        codes = [_end(process) for process in (lister, reader)]
    if not reason and any(codes):
        reason = f"is damaged ({errors[0].text or errors[1].text})"
    if reason:
        text = f"the snapshot {name} {reason}; nothing was changed. Choose another one"
        raise LabhostError(text, reason="bad_snapshot", snapshot=name, detail=reason)


def _unpack(host: Host, user: User, account: Account, archive: IO[bytes], version: str) -> Path:
    reader = _spawn_unpacker(account, archive)
    _StderrReader(reader)
    assert reader.stdout is not None
    try:
        return drivers.driver_of(host, user).unpack(user, account, reader.stdout, version)
    finally:
        _end(reader)


def _end(process: Process) -> int:
    """The exit status of a process; it is killed if it does not end."""
    if process.stdout is not None:
        process.stdout.close()
    try:
        return process.wait(timeout=30)
    except Exception:
        process.kill()
        return process.wait()


class _StderrReader:
    """Reads the stderr of a process, so that the pipe never fills; keeps the last line."""

    def __init__(self, process: Process) -> None:
        self._stream, self._tail = process.stderr, b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while self._stream is not None and (piece := self._stream.read1(4096)):  # type: ignore[attr-defined]
            self._tail = (self._tail + piece)[-4096:]

    @property
    def text(self) -> str:
        self._reader.join(timeout=5)
        return (self._tail.decode("utf-8", "replace").strip().splitlines() or [""])[-1]


def _megabytes(size: int) -> str:
    return f"{max(1, size >> 20)} MB"
