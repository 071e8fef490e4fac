"""The template: a tar archive, plain or compressed by zstd, gzip or xz; checked once, then unpacked."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO

from labhost.accounts import id_map
from labhost.errors import LabhostError
from labhost.host import Host
from labhost.storage import tree
from labhost.storage.tar_listing import LIST_COMMAND
from labhost.system import Result, files, finish, openat2, run, spawn
from labhost.system.json_files import known_fields, load_object, save_object

READ_SECONDS = 600
UNPACK_SECONDS = 900
_DECOMPRESSORS = {
    b"\x28\xb5\x2f\xfd": ["/usr/bin/zstd", "-dcq"],
    b"\x1f\x8b": ["/usr/bin/gzip", "-dcq"],
    b"\xfd7zXZ\x00": ["/usr/bin/xz", "-dcq"],
}
# Each system gets its own; the templates may have paths with and without `./`.
_OMITTED = ("dev/*", "etc/ssh/ssh_host_*", "etc/machine-id", "var/lib/dbus/machine-id")
_EXTRACT = ["/usr/bin/tar", "--extract", "--file=-", "--preserve-permissions", "--numeric-owner", "--xattrs"]
_EXTRACT += ["--xattrs-include=*", "--warning=no-unknown-keyword", "--anchored"]
_EXTRACT += [f"--exclude={prefix}{path}" for path in _OMITTED for prefix in ("./", "")]
# An empty machine-id is filled at the first boot, which then does not count as a first boot with questions.
_UNPACK = 'set -eu; cd "$1"; shift; "$@"; if [ -d etc ] && [ ! -L etc ]; then : > etc/machine-id; fi'


@dataclass(frozen=True)
class TemplateInfo:
    """`version` is the beginning of the archive's SHA-256, `size` the bytes of its unpacked files."""

    version: str
    size: int


def inspect(host: Host) -> TemplateInfo:
    """Reads the whole archive, unless it is known since it last changed. LabhostError if it is damaged."""
    path = host.config.container.template
    if not path.is_file():
        text = f"the template {path} is missing; build it with create-lxc-template.bash"
        raise LabhostError(text, reason="template_missing", template=str(path))
    with open(path, "rb") as archive:
        status = os.fstat(archive.fileno())
        signature = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
        cache = host.paths.state / "template.json"
        with suppress(LabhostError, TypeError):  # the cache may be damaged
            known = load_object(cache) or {}
            if known.get("file") == signature:
                return TemplateInfo(**known_fields(TemplateInfo, known))
        version = files.sha256_of(archive)[:12]
        archive.seek(0)
        found = TemplateInfo(version, _unpacked_size(archive))
    save_object(cache, {"file": signature, **asdict(found)})
    return found


def unpack(host: Host, folder: Path, *, subuid: int = 0) -> None:
    """Unpacks the template into an empty folder as root, or as root of the id map that begins at `subuid`."""
    command = ["/bin/sh", "-c", _UNPACK, "sh", str(folder), *_EXTRACT]
    with open(host.config.container.template, "rb") as archive:
        work = partial(id_map.run, subuid, folder, command) if subuid else partial(run, command)
        read, unpacked = _pipe(archive, work, timeout=UNPACK_SECONDS)
    tree.check_disk_full(unpacked)
    read.check("the template cannot be read; ask the lab's staff to build it again", reason="template_unreadable")
    unpacked.check("the template cannot be unpacked", reason="template_not_unpacked")


def check_bootable(rootfs: Path) -> None:
    """LabhostError if an unpacked system could not boot."""
    with openat2.directory(rootfs) as root:
        for path in ("sbin/init", "usr/sbin/sshd", "usr/sbin/useradd"):
            if not openat2.is_file(root, path):
                text = f"the system has no /{path}; ask the lab's staff to build the template again"
                raise LabhostError(text, reason="system_incomplete", path=f"/{path}")


def _unpacked_size(archive: IO[bytes]) -> int:
    """The bytes of the archive's files, from reading all of it; LabhostError."""
    read, listed = _pipe(archive, partial(run, LIST_COMMAND), timeout=READ_SECONDS, max_output=1 << 28)
    if not (read.ok and listed.ok):
        text = "the template is damaged; build it again with create-lxc-template.bash"
        raise LabhostError(text, reason="template_damaged")
    # The third column is the size in bytes (tar --verbose); devices have "major,minor" there.
    sizes = (line.split(None, 3)[2] for line in listed.out.splitlines() if line.count(b" ") >= 3)
    return sum(int(size) for size in sizes if size.isdigit())


def _pipe(archive: IO[bytes], work: Callable[..., Result], **limits: float) -> tuple[Result, Result]:
    """Calls `work` with the decompressed archive as `stdin`: the results of the decompressor and of the work."""
    reader = spawn(_decompressor(archive), stdin=archive)
    assert reader.stdout is not None
    result = work(stdin=reader.stdout, **limits)
    return finish(reader, ["the decompressor"], timeout=10), result


def _decompressor(archive: IO[bytes]) -> list[str]:
    """The command that turns this file on stdin into a plain tar stream. The file stays at its beginning."""
    head = os.pread(archive.fileno(), 512, 0)
    for magic, command in _DECOMPRESSORS.items():
        if head.startswith(magic):
            return command
    if head[257:262] == b"ustar":
        return ["/bin/cat"]
    text = "the template is not a tar archive; build it again with create-lxc-template.bash"
    raise LabhostError(text, reason="template_damaged")
