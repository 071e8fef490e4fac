"""Cases S2 and S3 with the real tar inside a real id map; needs root."""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from labhost import lxc
from labhost.storage import tree
from labhost.system import mounts
from labhost.system.openat2 import closing
from labhost.system.processes import Account, Result, finish

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SUBUID = 1_200_000_000
ROOT = Account("root", 0, 0)


@pytest.fixture(autouse=True)
def _in_map(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """lxc-usernsexec maps only ids of /etc/subuid; these tests use the kernel directly."""
    with closing(mounts._user_namespace(SUBUID, 65536)) as namespace:
        enter = ["nsenter", f"--user=/proc/{os.getpid()}/fd/{namespace}", "--setuid=0", "--setgid=0", "--"]
        monkeypatch.setattr(lxc, "in_id_map", lambda *words: [*enter, *words[2]])
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for parent in tmp_path.parents:
        if parent != Path("/") and parent.stat().st_uid == 0:
            parent.chmod(parent.stat().st_mode | 0o711)
    tmp_path.chmod(0o755)
    return tmp_path


def owned(path: Path, uid: int = 0) -> Path:
    path.mkdir(mode=0o755)
    os.chown(path, SUBUID + uid, SUBUID + uid)
    return path


def copied(source: Path, target: Path) -> Result:
    process = tree.archive(ROOT, SUBUID, source)
    assert process.stdout is not None
    result = tree.extract(ROOT, SUBUID, process.stdout, target)
    assert finish(process, ["tar"], timeout=20).code == 0
    return result


def test_s3_a_round_trip_keeps_attributes(folder: Path) -> None:
    source, target = owned(folder / "source"), owned(folder / "target")
    program = source / "program"
    program.write_text("x")
    os.chown(program, SUBUID + 1000, SUBUID + 4)
    program.chmod(0o4755)
    os.setxattr(program, "user.colour", b"blue")
    # cap_net_raw+ep, of a namespace whose root is SUBUID (capabilities(7), version 3)
    capability = bytes.fromhex("01000003" + "00200000" + "0" * 24) + SUBUID.to_bytes(4, "little")
    (source / "ping").write_text("x")
    os.chown(source / "ping", SUBUID, SUBUID)
    os.setxattr(source / "ping", "security.capability", capability)
    os.link(program, source / "second")
    with (source / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
    os.mknod(source / "deleted", stat.S_IFCHR, os.makedev(0, 0))
    owned(source / "opaque")
    os.setxattr(source / "opaque", "user.overlay.opaque", b"y")
    os.setxattr(source / "opaque", "user.overlay.redirect", b"/etc")

    copied(source, target).check("unpacking")
    status = (target / "program").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (SUBUID + 1000, SUBUID + 4, 0o4755)
    assert os.getxattr(target / "program", "user.colour") == b"blue"
    assert os.getxattr(target / "ping", "security.capability") == capability
    assert (target / "second").stat().st_ino == status.st_ino
    assert (target / "sparse").stat().st_size == 1 << 30 and (target / "sparse").stat().st_blocks < 100
    assert (target / "deleted").stat().st_rdev == 0 and stat.S_ISCHR((target / "deleted").stat().st_mode)
    assert os.getxattr(target / "opaque", "user.overlay.opaque") == b"y"
    assert "user.overlay.redirect" not in os.listxattr(target / "opaque"), "it would point to another folder"


HOSTILE = {
    "absolute": [("{outside}/new", tarfile.REGTYPE, "")],
    "up": [("./../outside/new", tarfile.REGTYPE, "")],
    "through-a-symlink": [("./link", tarfile.SYMTYPE, "{outside}"), ("./link/new", tarfile.REGTYPE, "")],
    "through-a-relative-one": [("./link", tarfile.SYMTYPE, "../outside"), ("./link/new", tarfile.REGTYPE, "")],
    "hard-link": [("./link", tarfile.LNKTYPE, "{outside}/old"), ("./link", tarfile.REGTYPE, "")],
    "hard-link-up": [("./link", tarfile.LNKTYPE, "../outside/old")],
    "device": [("./disk", tarfile.BLKTYPE, "")],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_s2_nothing_is_unpacked_outside_even_without_the_check(folder: Path, kind: str) -> None:
    """Everybody can write to the folder outside, so only tar and the id map protect it."""
    target, outside = owned(folder / "target"), folder / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "old").write_text("old")
    (outside / "old").chmod(0o666)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, type_, link in [("./fine", tarfile.REGTYPE, ""), *HOSTILE[kind]]:
            info = tarfile.TarInfo(name.format(outside=outside))
            info.type, info.linkname, info.devmajor, info.devminor = type_, link.format(outside=outside), 8, 0
            info.size = 3 if type_ == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"new"))
    (folder / "hostile.tar").write_bytes(packed.getvalue())
    with (folder / "hostile.tar").open("rb") as stream:
        tree.extract(ROOT, SUBUID, stream, target)
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("old", "old")]
    assert (target / "fine").read_text() == "new"
    assert (outside / "old").stat().st_nlink == 1
    assert not [path for path in target.rglob("*") if stat.S_ISBLK(path.lstat().st_mode)]


def test_a_tree_is_measured_and_removed_with_mapped_ids(folder: Path) -> None:
    theirs, mine = owned(folder / "theirs"), folder / "mine"
    mine.mkdir()
    (mine / "file").write_text("x")
    (theirs / "link").symlink_to(mine)
    owned(theirs / "deep").joinpath("file").write_bytes(b"x" * 50_000)
    os.chown(theirs / "deep/file", SUBUID, SUBUID)
    assert 50_000 < tree.size(ROOT, SUBUID, theirs) < 100_000
    tree.remove(ROOT, SUBUID, theirs)
    assert not theirs.exists() and (mine / "file").exists()
