"""The template: a tar archive, plain or packed by zstd, gzip or xz; judged once, before it is used."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from labhost.errors import LabhostError
from labhost.host.config import Host
from labhost.system import files, openat2
from labhost.system.processes import finish, run, spawn

READ_SECONDS = 600
_PACKERS = {
    b"\x28\xb5\x2f\xfd": ["/usr/bin/zstd", "-dcq"],
    b"\x1f\x8b": ["/usr/bin/gzip", "-dcq"],
    b"\xfd7zXZ\x00": ["/usr/bin/xz", "-dcq"],
}


@dataclass(frozen=True)
class TemplateInfo:
    """`version` is the beginning of the archive's SHA-256, `size` the bytes of its unpacked files."""

    version: str
    size: int


def decompressor(archive: IO[bytes]) -> list[str]:
    """The command that makes a plain tar stream of this file on stdin. The file stays at its beginning."""
    head = os.pread(archive.fileno(), 512, 0)
    for magic, words in _PACKERS.items():
        if head.startswith(magic):
            return words
    if head[257:262] == b"ustar":
        return ["/bin/cat"]
    raise LabhostError("the template is not a tar archive; build it again with create-lxc-template.bash")


def inspect(host: Host) -> TemplateInfo:
    """What a full reading of the archive found; kept until the file changes. LabhostError if it is damaged."""
    path = host.config.container.template
    if not path.is_file():
        raise LabhostError(f"the template {path} is missing; build it with create-lxc-template.bash")
    with open(path, "rb") as archive:
        status = os.fstat(archive.fileno())
        seen = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
        note = host.paths.state / "template.json"
        known = json.loads(files.read_text(note) or "{}")
        if known.get("file") == seen and "version" in known:
            return TemplateInfo(known["version"], known["size"])
        found = TemplateInfo(_version(archive), _read_through(archive))
    text = json.dumps({"file": seen, "version": found.version, "size": found.size})
    files.write_atomic(note, text + "\n", mode=0o600)
    return found


def _version(archive: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := archive.read(1 << 20):
        digest.update(piece)
    archive.seek(0)
    return digest.hexdigest()[:12]


def _read_through(archive: IO[bytes]) -> int:
    """Reads the whole archive, as the unpacking will, without writing; the bytes of its files."""
    words = ["/usr/bin/tar", "--list", "--verbose", "--numeric-owner", "--quoting-style=escape", "--file=-"]
    reader = spawn(decompressor(archive), stdin=archive)
    assert reader.stdout is not None
    listed = run(words, timeout=READ_SECONDS, stdin=reader.stdout, max_output=1 << 28)
    read = finish(reader, ["the decompressor"], timeout=10)
    if not (read.ok and listed.ok):
        raise LabhostError("the template is damaged; build it again with create-lxc-template.bash")
    # The third word of each line is the size in bytes (tar --verbose); devices have "major,minor" there.
    sizes = (line.split(None, 3)[2] for line in listed.out.splitlines() if line.count(b" ") >= 3)
    return sum(int(size) for size in sizes if size.isdigit())


def check_bootable(rootfs: Path) -> None:
    """LabhostError if what was unpacked could not boot."""
    with openat2.directory(rootfs) as root:
        missing = [
            path for path in ("sbin/init", "usr/sbin/sshd", "usr/sbin/useradd") if not openat2.is_file(root, path)
        ]
    if missing:
        raise LabhostError(f"the system has no /{missing[0]}; ask the lab's staff to build the template again")
