"""Snapshots: what is a person's own of her system, packed into the lab's folder, and brought back from there."""

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import IO

from labhost.container import lifecycle, system_swap
from labhost.errors import LabhostError, Refused
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.storage import drivers, snapshot_store, tar_listing, tree
from labhost.storage.snapshot_store import Manifest
from labhost.system import failpoints, log
from labhost.system.processes import Account, Process, spawn
from labhost.system.progress import Progress

LEVEL = "-3"


def create(host: Host, user: User, progress: Progress, name: str = "") -> None:
    """A snapshot of that name, or of a name by the date. The container may run meanwhile."""
    name = snapshot_store.check_snapshot_name(name or time.strftime("%Y-%m-%d-%H%M%S"))
    with lifecycle.locked(host, user, "being snapshotted") as (user, account):
        driver = drivers.driver_of(host, user)
        driver.attach(user, account)
        snapshot_store.remove_leftovers(host, user.name)
        if any(one.name == name for one in snapshot_store.list_snapshots(host, user.name)):
            raise Refused(f"there is a snapshot {name} already; choose another name")
        unpacked = driver.size(user, account)
        progress.write(f"snapshot {name}: {_megabytes(unpacked)} to pack")
        tree.check_free_space(snapshot_store.folder(host, user.name), unpacked)
        size, sha256 = _pack(host, user, account, name)
        failpoints.hit("packed")
        what = (driver.name, driver.version(user), unpacked, size, sha256)
        snapshot_store.publish(host, Manifest(name, user.name, host.config.server.name, time.time(), *what))
        failpoints.hit("published")
        progress.write(f"snapshot {name} is complete: {_megabytes(size)}, to get it back: recover {name}")
        for old in snapshot_store.list_snapshots(host, user.name)[: -host.config.snapshots.keep]:
            snapshot_store.remove(host, old)
            progress.write(f"snapshot {old.name} removed: {host.config.snapshots.keep} are kept")
    log.write(f"{user.name}: snapshot {name}")


def show(host: Host, user: User, progress: Progress) -> None:
    found = snapshot_store.list_snapshots(host, user.name)
    for one in found:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.created_at))
        progress.write(f"{one.name}  {made}  {_megabytes(one.size)}, {_megabytes(one.unpacked)} unpacked")
    if not found:
        progress.write(f"you have no snapshots here; to make one: ssh {host.config.server.name}-manage snapshot")


def recover(host: Host, user: User, progress: Progress, name: str) -> None:
    """The system of a snapshot in the place of the current one, which is kept until the first good start."""
    snapshot_store.check_snapshot_name(name)
    with lifecycle.locked(host, user, "being recovered") as (user, account):
        driver = drivers.driver_of(host, user)
        driver.attach(user, account)
        driver.remove_leftovers(user, account)
        wanted = snapshot_store.find(host, user.name, name)
        if wanted.storage != driver.name:
            raise Refused(
                f"the snapshot {name} was made with storage {wanted.storage}, and your container has {driver.name};"
                " ask the lab's staff"
            )
        progress.write(f"checking the snapshot {name}: {_megabytes(wanted.size)}")
        tree.check_free_space(host.paths.home, wanted.unpacked)
        with snapshot_store.open_verified(host, wanted) as archive:
            _check_members(account, archive, name)
            progress.write("unpacking it")
            system = _unpack(host, user, account, archive, wanted.template)
        lifecycle.halt(host, user, account, progress)
        system_swap.swap(host, user, account, system)
    log.write(f"{user.name}: snapshot {name} recovered")
    progress.write("it is in place; the system before is kept until the first good start")
    progress.write(f"to start it: ssh {host.config.server.name}-manage")


def _pack(host: Host, user: User, account: Account, name: str) -> tuple[int, str]:
    """Bytes and SHA-256 of the archive that was written."""
    digest, size = hashlib.sha256(), 0
    with snapshot_store.open_new(host, user.name, name) as target:
        source = drivers.driver_of(host, user).archive(user, account)
        packer = spawn(["/usr/bin/zstd", "-q", "-T0", LEVEL, "-c"], account=account, stdin=source.stdout)
        errors = [_LastWords(source), _LastWords(packer)]
        try:
            assert source.stdout is not None and packer.stdout is not None
            source.stdout.close()
            while piece := packer.stdout.read(snapshot_store.CHUNK):
                target.write(piece)
                digest.update(piece)
                size += len(piece)
                failpoints.hit("packing")
        finally:
            packed, read = _end(packer), _end(source)  # in this order: tar waits for a packer that nobody reads
        # tar's 1: a file changed while it was read, as files of a running container do.
        if read not in (0, 1) or packed != 0:
            raise LabhostError(f"the files cannot be packed: {errors[0].text or errors[1].text or 'tar was killed'}")
    return size, digest.hexdigest()


def _check_members(account: Account, archive: IO[bytes], name: str) -> None:
    """LabhostError if a member could do harm, or if the archive does not end as it should."""
    os.lseek(archive.fileno(), 0, os.SEEK_SET)  # the descriptor's own: another process has read from it
    reader = spawn(["/usr/bin/zstd", "-dcq"], account=account, stdin=archive)
    lister = spawn(tar_listing.LIST_COMMAND, account=account, stdin=reader.stdout)
    errors = [_LastWords(reader), _LastWords(lister)]
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
        raise LabhostError(f"the snapshot {name} {reason}; nothing was changed. Choose another one")


def _unpack(host: Host, user: User, account: Account, archive: IO[bytes], version: str) -> Path:
    os.lseek(archive.fileno(), 0, os.SEEK_SET)  # the descriptor's own: another process has read from it
    reader = spawn(["/usr/bin/zstd", "-dcq"], account=account, stdin=archive)
    _LastWords(reader)
    assert reader.stdout is not None
    try:
        return drivers.driver_of(host, user).unpack(user, account, reader.stdout, version)
    finally:
        _end(reader)


def _end(process: Process) -> int:
    """Its exit status, once it has ended or, if nobody reads it any more, was killed."""
    if process.stdout is not None:
        process.stdout.close()
    try:
        return process.wait(timeout=30)
    except Exception:
        process.kill()
        return process.wait()


class _LastWords:
    """Reads a process's stderr, so that it never fills, and keeps the last line."""

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
