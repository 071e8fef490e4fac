"""Cases S2 and S6: what a snapshot's archive must not contain, by the listing of the real tar."""

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from labhost.storage import tar_listing


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def device(kind: bytes, major: int, minor: int) -> tarfile.TarInfo:
    info = member("./dev/x", kind)
    info.devmajor, info.devminor = major, minor
    return info


def faults(tmp_path: Path, *infos: tarfile.TarInfo) -> list[str]:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO())
    with archive.open("rb") as stream:
        done = subprocess.run(tar_listing.LIST_COMMAND, stdin=stream, capture_output=True, check=True)
    return [tar_listing.refusal_reason(line) for line in done.stdout.splitlines()]


BAD: dict[str, Callable[[], tarfile.TarInfo]] = {
    "absolute": lambda: member("/etc/passwd"),
    "up": lambda: member("../etc/passwd"),
    "up-inside": lambda: member("./a/../../etc/passwd"),
    "top-level-extra": lambda: member("rootfs/etc/passwd"),
    "hard-link-absolute": lambda: member("./x", tarfile.LNKTYPE, "/etc/shadow"),
    "hard-link-up": lambda: member("./x", tarfile.LNKTYPE, "./../x"),
    "symlink-outside": lambda: member("/x", tarfile.SYMTYPE, "y"),
    "block-device": lambda: device(tarfile.BLKTYPE, 8, 0),
    "character-device": lambda: device(tarfile.CHRTYPE, 1, 1),
    "block-device-0": lambda: device(tarfile.BLKTYPE, 0, 0),
    "line-break": lambda: member("/etc/x\n./y"),
}


@pytest.mark.parametrize("kind", BAD)
def test_s2_a_dangerous_entry_is_refused(tmp_path: Path, kind: str) -> None:
    found = faults(tmp_path, member("./fine"), BAD[kind]())
    assert found[0] == "" and len(found) == 2
    assert found[1].startswith("has a")


def test_entries_of_a_normal_system_are_accepted(tmp_path: Path) -> None:
    fine = [
        member("./", tarfile.DIRTYPE),
        member("./bin", tarfile.SYMTYPE, "usr/bin"),
        member("./etc/alternatives/x", tarfile.SYMTYPE, "/../../etc/shadow"),  # tar creates it and follows no link
        member("./a", tarfile.REGTYPE),
        member("./b", tarfile.LNKTYPE, "./a"),
        member("./with space -> and link to", tarfile.REGTYPE),
        member("./new\nline", tarfile.REGTYPE),
        member("./fifo", tarfile.FIFOTYPE),
        member("./..dots", tarfile.REGTYPE),
        device(tarfile.CHRTYPE, 0, 0),
    ]
    assert [fault for fault in faults(tmp_path, *fine) if fault] == []


def test_s6_names_are_read_whole(tmp_path: Path) -> None:
    """A hard link is judged by its target, also if its name looks like one, and a path by its bytes."""
    longest = "./" + "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 2046 + "x"  # 4095 bytes, escaped by tar to 16371
    fine = [
        member("./a link to b", tarfile.LNKTYPE, './" link to "/etc'),
        member('./x" -> "y', tarfile.SYMTYPE, '" link to "/etc/shadow'),
        member(longest),
        member(longest + "/", tarfile.DIRTYPE),
    ]
    assert faults(tmp_path, *fine) == [""] * len(fine)
    bad = [member('./" link to "./fine', tarfile.LNKTYPE, "/etc/shadow"), member(longest + "x")]
    hard_link, too_long = faults(tmp_path, *bad)
    assert hard_link.startswith("has a hard link to a file outside it: ./")
    assert too_long.startswith("has a path that is too long: ./") and len(too_long) < 120


@pytest.mark.parametrize("line", [b"", b"\n", b"tar: something", b"-rw-r--r-- root/root 0 2026-01-01 00:00 ./x"])
def test_an_unparsable_line_is_refused(line: bytes) -> None:
    assert tar_listing.refusal_reason(line)
