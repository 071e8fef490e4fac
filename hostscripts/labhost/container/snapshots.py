"""Snapshots: packs the changed files of a container into the snapshot folder, and recovers a container from there."""

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import IO, NamedTuple

from labhost.container import lifecycle, system_swap
from labhost.errors import LabhostError, Refused
from labhost.host import Host, User
from labhost.storage import drivers, snapshot_store, tar_listing, tree
from labhost.storage.driver import Storage
from labhost.storage.snapshot_store import Manifest
from labhost.system import Account, Process, Progress, failpoints, files, log, spawn

COMPRESS = ["/usr/bin/zstd", "-q", "-T0", "-3", "-c"]


class Packed(NamedTuple):
    size: int  # bytes of the archive
    sha256: str
    total: int  # bytes of the tar in it


def create(host: Host, user: User, progress: Progress, name: str = "") -> None:
    """Create a snapshot; without a name it is named by the date. The container may run meanwhile."""
    name = snapshot_store.check_snapshot_name(name or time.strftime("%Y-%m-%d-%H%M%S"))
    with lifecycle.locked(host, user, "being snapshotted") as (user, account):
        driver = drivers.driver_of(host, user)
        driver.attach(user, account)
        snapshot_store.remove_leftovers(host, user.subuid)
        if any(one.name == name for one in snapshot_store.list_snapshots(host, user.subuid)):
            text = f"the snapshot {name} exists already; choose another name"
            raise Refused(text, reason="snapshot_exists", snapshot=name)
        unpacked = driver.size(user, account)
        progress.write(f"snapshot {name}: {_megabytes(unpacked)} to pack")
        snapshot_store.check_free_space(host, user.subuid, unpacked)
        with snapshot_store.open_new(host, user.subuid, name) as target:
            packed = _pack(driver.archive(user, account), account, target)
            progress.write(f"checking the snapshot: {_megabytes(packed.size)}")
            _verify(account, target, packed)
        failpoints.hit("packed")
        what = (driver.name, driver.version(user), unpacked, packed.size, packed.sha256)
        server = host.config.server.name
        snapshot_store.publish(host, Manifest(name, user.name, user.subuid, server, time.time(), *what))
        failpoints.hit("published")
        progress.write(f"snapshot {name} saved: {_megabytes(packed.size)}; to recover it: recover {name}")
        for old in snapshot_store.list_snapshots(host, user.subuid)[: -host.config.snapshots.keep]:
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
        wanted = snapshot_store.find(host, user.subuid, name)
        if wanted.storage != driver.name:
            has, needed = wanted.storage, driver.name
            text = f"the snapshot {name} has storage {has}, your container {needed}; ask the lab's staff"
            raise Refused(text, reason="other_storage", snapshot=name, storage=has, container=needed)
        progress.write(f"checking the snapshot {name}: {_megabytes(wanted.size)}")
        tree.check_free_space(host.paths.home, wanted.unpacked)
        with snapshot_store.open_verified(host, wanted) as archive:
            total = _check_members(account, archive, name)
            progress.write("unpacking the snapshot")
            system = _unpack(driver, user, account, tree.Archive(archive, total), wanted.template)
        lifecycle.halt(host, user, account, progress)
        system_swap.swap(host, user, account, system)
    log.write(f"{user.name}: snapshot {name} recovered")
    progress.write(f"snapshot {name} recovered; your old container is kept until the first successful start")
    progress.write(f"next: ssh {host.config.server.name}-manage to start it")


def _pack(source: Process, account: Account, target: IO[bytes]) -> Packed:
    """Writes what tar packs to `target`, compressed; LabhostError unless tar came to its end."""
    digest, size = hashlib.sha256(), 0
    packer = spawn(COMPRESS, account=account, stdin=source.stdout)
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
        compressed, read = _end(packer), _end(source)  # in this order: tar waits for the packer
    total = tree.total_of(errors[0].tail)
    # tar's 1: a file changed while it was read, as files of a running container do.
    if read not in (0, 1) or compressed != 0 or not total:
        raise _not_packed(errors[bool(compressed)].text or f"tar ended with status {read}")
    return Packed(size, digest.hexdigest(), total)


def _verify(account: Account, target: IO[bytes], packed: Packed) -> None:
    """LabhostError unless what has reached the disk is what was packed, and could be recovered."""
    with snapshot_store.reopened(target) as archive:
        if files.sha256_of(archive) != packed.sha256:
            raise _not_packed("the snapshot folder holds other bytes than were written")
        fault, total = _list(account, archive)
    if not fault and total != packed.total:
        fault = "is incomplete"
    if fault:
        raise _not_packed(f"the snapshot {fault}")


def _not_packed(detail: str) -> LabhostError:
    text = f"the files cannot be packed: {detail}; nothing was saved"
    return LabhostError(text, reason="packing_failed", detail=detail)


def _spawn_unpacker(account: Account, archive: IO[bytes]) -> Process:
    os.lseek(archive.fileno(), 0, os.SEEK_SET)  # the position is shared: another process has read from it
    return spawn(["/usr/bin/zstd", "-dcq"], account=account, stdin=archive)


def _check_members(account: Account, archive: IO[bytes], name: str) -> int:
    """The bytes of the tar; LabhostError if a member could do harm, or if the archive is incomplete."""
    fault, total = _list(account, archive)
    if fault:
        text = f"the snapshot {name} {fault}; nothing was changed. Choose another one"
        raise LabhostError(text, reason="bad_snapshot", snapshot=name, detail=fault)
    return total


def _list(account: Account, archive: IO[bytes]) -> tuple[str, int]:
    """Reads an archive to its end: why it cannot be unpacked (empty if it can), and the bytes of the tar in it."""
    reader = _spawn_unpacker(account, archive)
    lister = spawn(tar_listing.LIST_COMMAND, account=account, stdin=reader.stdout)
    errors = [_StderrReader(reader), _StderrReader(lister)]
    fault = ""
    try:
        assert reader.stdout is not None and lister.stdout is not None
        reader.stdout.close()
        while not fault and (line := lister.stdout.readline(65536)):
            fault = tar_listing.refusal_reason(line)
    finally:
        codes = [_end(process) for process in (lister, reader)]
    total = tree.total_of(errors[1].tail)
    if not fault and (any(codes) or not total):
        fault = f"is damaged ({errors[0].text or errors[1].text})"
    return fault, total


def _unpack(driver: Storage, user: User, account: Account, packed: tree.Archive, version: str) -> Path:
    reader = _spawn_unpacker(account, packed.stream)
    _StderrReader(reader)
    assert reader.stdout is not None
    try:
        return driver.unpack(user, account, packed._replace(stream=reader.stdout), version)
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
    """Reads the stderr of a process, so that the pipe never fills; keeps the end."""

    def __init__(self, process: Process) -> None:
        self._stream, self._tail = process.stderr, b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while self._stream is not None and (piece := self._stream.read1(4096)):  # type: ignore[attr-defined]
            self._tail = (self._tail + piece)[-4096:]

    @property
    def tail(self) -> bytes:
        """The end of it, once the process has ended."""
        self._reader.join(timeout=5)
        return self._tail

    @property
    def text(self) -> str:
        """The last line, other than tar's total."""
        lines = self.tail.decode("utf-8", "replace").strip().splitlines()
        return next((line for line in reversed(lines) if not line.startswith("Total bytes ")), "")


def _megabytes(size: int) -> str:
    return f"{max(1, size >> 20)} MB"
