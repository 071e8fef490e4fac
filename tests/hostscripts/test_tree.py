"""Cases S2, S3, S5 and S6 with the real tar inside a real id map; needs root."""

import io
import os
import signal
import stat
import tarfile
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from labhost.errors import LabhostError, Refused
from labhost.storage import tree
from labhost.system.processes import Process, Result, finish

from tests.hostscripts import hosts

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SUBUID = 1_200_000_000


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
    process = tree.archive(SUBUID, source)
    assert process.stdout is not None
    result = tree.extract(SUBUID, process.stdout, target)
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
        tree.extract(SUBUID, stream, target)
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
    assert 50_000 < tree.size(SUBUID, theirs) < 100_000
    tree.remove(SUBUID, theirs)
    assert not theirs.exists() and (mine / "file").exists()


def archived(process: Process) -> bytes:
    """What tar packs; it has to reach its end."""
    out, err = process.communicate()
    assert process.returncode == 0 and tree.total_of(err) == len(out), err
    return out


def filled(folder: Path, files: int) -> bytes:
    """The archive of a folder with this many files of 4 KiB."""
    source = owned(folder / "filled")
    for number in range(files):
        (source / f"{number:04}").write_bytes(b"x" * 4096)
    return archived(tree.archive(SUBUID, source))


def test_s5_a_tar_that_is_killed_while_it_unpacks_is_an_error(folder: Path) -> None:
    target, data = owned(folder / "target"), filled(folder, 200)
    out, into = os.pipe()

    def feed() -> None:
        with os.fdopen(into, "wb") as stream:
            stream.write(data[: len(data) // 2])
            stream.flush()
            hosts.signal_child("tar", signal.SIGKILL)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with (
        os.fdopen(out, "rb") as stream,
        pytest.raises(LabhostError, match="cannot be unpacked: tar ended with status -9"),
    ):
        tree.unpack(SUBUID, tree.Archive(stream, len(data)), target)
    feeder.join()
    assert len(list(target.iterdir())) < 200


def test_s5_an_archive_that_ends_between_two_members_is_not_whole(folder: Path) -> None:
    """tar itself accepts it, as if the program before it in the pipe was killed."""
    data = filled(folder, 20)
    target, short = owned(folder / "target"), folder / "short"
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        short.write_bytes(data[: tar.getmembers()[10].offset])
    with short.open("rb") as stream:
        assert tree.extract(SUBUID, stream, target).ok
    with short.open("rb") as stream, pytest.raises(LabhostError, match="not read to its end"):
        tree.unpack(SUBUID, tree.Archive(stream, len(data)), target)
    short.write_bytes(data)
    with short.open("rb") as stream:
        tree.unpack(SUBUID, tree.Archive(stream, len(data)), target)


LONG = "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 127 + "x"  # 255 bytes


def nested(folder: Path, names: Iterable[str], file: str = "") -> None:
    """Folders in each other, and a file in the last one."""
    place = os.open(folder, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=place)
        os.chown(name, SUBUID, SUBUID, dir_fd=place)
        below = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    if file:
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_s6_the_longest_path_that_is_packed_can_be_unpacked(folder: Path, kind: str) -> None:
    source, target = owned(folder / "source"), owned(folder / "target")
    last = "e" * (tree.PATH_MOST - len("./") - 15 * 256)
    nested(source, [LONG] * 15 + [last] * (kind == "folder"), last if kind == "file" else "")
    copied(source, target).check("unpacking")
    with tarfile.open(fileobj=io.BytesIO(archived(tree.archive(SUBUID, source)))) as tar:
        assert max(len(os.fsencode(name)) for name in tar.getnames()) == tree.PATH_MOST


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_s6_a_path_that_cannot_be_unpacked_is_refused_with_its_beginning(folder: Path, kind: str) -> None:
    source, last = owned(folder / "source"), "e" * (tree.PATH_MOST - len("./") - 15 * 256 + 1)
    nested(source, ["here\n", *[LONG] * 14, "d" * 250] + [last] * (kind == "folder"), last if kind == "file" else "")
    with pytest.raises(Refused, match=r"the path \./here\?/\S+\.\.\. is longer than 4095 bytes"):
        tree.archive(SUBUID, source)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """Where 20,000 folders are made and deleted in a second."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_s5_twenty_thousand_nested_folders_are_refused_and_can_be_deleted(in_memory: Path) -> None:
    """They make tar crash."""
    source = owned(in_memory / "source")
    nested(source, ["d"] * 20_000)
    with pytest.raises(Refused, match=r"the path \./d/d/d/"):
        tree.archive(SUBUID, source)
    assert tree.size(SUBUID, source) == 0, "folders in memory need no blocks"
    tree.remove(SUBUID, source)
    assert not source.exists()
