"""Cases H1-H4: neighbours of those in test_beneath.py."""

import os
import threading
import time
from pathlib import Path

import pytest
from labhost import beneath
from labhost.errors import LabhostError

from tests.hostscripts.test_beneath import LINKS, OWNER, home, target, write

__all__ = ["home"]
pytestmark = pytest.mark.root
PROC = ["/proc/self/cwd", "/proc/self/root", "/proc/self/fd/0"]


@pytest.mark.parametrize("link", [*LINKS, *PROC])
def test_h1_every_kind_of_link_in_place_of_the_file_is_replaced(home: Path, link: str) -> None:
    outside = home.parents[1] / "outside"
    before = outside.stat()
    target(home).symlink_to(link.format(outside=outside))
    assert write(home)
    assert not target(home).is_symlink() and target(home).read_text() == "a key\n"
    assert (outside.stat().st_uid, outside.stat().st_mode) == (before.st_uid, before.st_mode)
    assert [path.read_text() for path in outside.iterdir()] == ["precious"]


@pytest.mark.parametrize("link", [*LINKS, *PROC])
def test_h1_a_link_further_up_is_refused(home: Path, link: str) -> None:
    outside = home.parents[1] / "outside"
    (outside / ".ssh").mkdir()
    home.rename(home.with_name("kept"))
    home.symlink_to(link.format(outside=outside))
    with pytest.raises(LabhostError):
        write(home)
    assert list((outside / ".ssh").iterdir()) == []


@pytest.mark.parametrize("path", ["..", "../outside", "home/../../outside", "/"])
def test_h1_ways_up_are_refused(home: Path, path: str) -> None:
    with beneath.directory(home.parent) as root, pytest.raises(LabhostError), beneath.inner(root, path):
        pass


def test_h1_the_temporary_name_may_be_a_trap(home: Path) -> None:
    outside = home.parents[1] / "outside/authorized_keys"
    (home / ".ssh/.authorized_keys.lab-iam-new").symlink_to(outside)
    assert write(home)
    assert outside.read_text() == "precious" and outside.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("link", [*LINKS, *PROC])
def test_h1_a_link_in_place_of_a_folder_to_be_made_is_left_alone(home: Path, link: str) -> None:
    outside = home.parents[1] / "outside"
    (home / ".ssh").rmdir()
    (home / ".ssh").symlink_to(link.format(outside=outside))
    with beneath.directory(home) as fd:
        assert not beneath.make_directory(fd, ".ssh", owner=OWNER, mode=0o700)
    assert outside.stat().st_uid == os.geteuid()


def test_h2_a_folder_being_made_is_swapped_for_one_outside(home: Path) -> None:
    outside = home.parents[1] / "outside"
    (home / ".ssh").rmdir()
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            try:
                (home / ".ssh").rmdir()
                (home / ".ssh").symlink_to(outside)
                (home / ".ssh").unlink()
            except OSError:
                continue

    racer = threading.Thread(target=swap)
    racer.start()
    end, made = time.monotonic() + 1, 0
    with beneath.directory(home) as fd:
        while time.monotonic() < end:
            try:
                made += beneath.make_directory(fd, ".ssh", owner=OWNER, mode=0o700)
            except (LabhostError, OSError):
                continue
    done.set()
    racer.join()
    assert made, "the race was not run"
    assert outside.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("kind", ["fifo", "file", "device"])
def test_h3_something_else_in_place_of_the_folder_is_refused_at_once(home: Path, kind: str) -> None:
    (home / ".ssh").rmdir()
    if kind == "fifo":
        os.mkfifo(home / ".ssh")
    elif kind == "file":
        (home / ".ssh").touch()
    else:
        os.mknod(home / ".ssh", 0o20666, os.makedev(5, 0))
    began = time.monotonic()
    with pytest.raises(LabhostError):
        write(home)
    assert time.monotonic() - began < 2


def test_h5_a_set_uid_bit_or_another_owner_is_put_right(home: Path) -> None:
    assert write(home)
    target(home).chmod(0o4600)
    assert write(home)
    os.chown(target(home), 0, 0)
    assert write(home)
    status = target(home).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (*OWNER, 0o600)
