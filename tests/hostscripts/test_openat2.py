"""Cases H1-H5: writing to a folder that an attacker controls, next to one that must not change."""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from labhost.errors import LabhostError
from labhost.system import openat2

from tests.lab.waiting import ends_within

pytestmark = pytest.mark.root
OWNER = (65_000, 65_001)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "root/home/.ssh").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/authorized_keys").write_text("precious")
    return tmp_path / "root/home"


def write(home: Path, text: str = "a key\n") -> bool:
    with openat2.directory(home.parent) as root, openat2.subdirectory(root, "home/.ssh") as folder:
        return openat2.replace_file(folder, "authorized_keys", text, owner=OWNER, mode=0o600)


def target(home: Path) -> Path:
    return home / ".ssh/authorized_keys"


LINKS = ["{outside}", "../../outside", "/nowhere", "/proc/self/cwd"]
PROC = ["/proc/self/cwd", "/proc/self/root", "/proc/self/fd/0"]


@pytest.mark.parametrize("link", LINKS, ids=["absolute", "relative", "dangling", "proc"])
def test_h1_a_link_in_place_of_the_folder_is_refused(home: Path, link: str) -> None:
    outside = home.parents[1] / "outside"
    (home / ".ssh").rmdir()
    (home / ".ssh").symlink_to(link.format(outside=outside))
    with pytest.raises(LabhostError, match="symbolic link"):
        write(home)
    assert (outside / "authorized_keys").read_text() == "precious"


def test_h1_a_link_in_place_of_the_file_is_replaced(home: Path) -> None:
    outside = home.parents[1] / "outside/authorized_keys"
    target(home).symlink_to(outside)
    assert write(home)
    assert outside.read_text() == "precious" and not target(home).is_symlink()


def test_h2_while_the_folder_is_swapped_nothing_is_written_outside(home: Path) -> None:
    outside = home.parents[1] / "outside"
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            (home / ".ssh").rename(home / "moved")
            (home / ".ssh").symlink_to(outside)
            (home / ".ssh").unlink()
            (home / "moved").rename(home / ".ssh")

    racer = threading.Thread(target=swap)
    racer.start()
    end, written, refused = time.monotonic() + 3, 0, 0
    while time.monotonic() < end:
        try:
            written += write(home, f"key {written}\n")
        except LabhostError:
            refused += 1
    done.set()
    racer.join()
    assert written and refused, "the race did not happen"
    assert [path.name for path in outside.iterdir()] == ["authorized_keys"]
    assert (outside / "authorized_keys").read_text() == "precious"


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


OBSTACLES: dict[str, Callable[[Path], None]] = {
    "fifo": lambda path: os.mkfifo(path),
    "socket": make_socket,
    "device": lambda path: os.mknod(path, 0o20666, os.makedev(5, 0)),
    "huge": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 20 << 30),
    "unreadable": lambda path: path.touch(mode=0),
}


@pytest.mark.parametrize("kind", OBSTACLES)
def test_h3_h4_anything_in_place_of_the_file_is_replaced_at_once(home: Path, kind: str) -> None:
    OBSTACLES[kind](target(home))
    with ends_within(30):
        assert write(home)
    assert target(home).read_text() == "a key\n"


def test_h3_a_directory_in_place_of_the_file_is_an_error_without_leftovers(home: Path) -> None:
    (target(home) / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write(home)
    assert [path.name for path in (home / ".ssh").iterdir()] == ["authorized_keys"]


def test_h4_a_hard_link_is_not_written_through(home: Path) -> None:
    outside = home.parents[1] / "outside/authorized_keys"
    target(home).hardlink_to(outside)
    assert write(home, "precious")
    assert outside.read_text() == "precious" and outside.stat().st_uid == os.geteuid()
    assert outside.stat().st_nlink == 1


def test_h5_owner_and_mode_are_set(home: Path) -> None:
    assert write(home)
    status = target(home).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (*OWNER, 0o600)
    assert not write(home), "rewritten without a change"


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
def test_h1_a_link_in_a_parent_is_refused(home: Path, link: str) -> None:
    outside = home.parents[1] / "outside"
    (outside / ".ssh").mkdir()
    home.rename(home.with_name("moved"))
    home.symlink_to(link.format(outside=outside))
    with pytest.raises(LabhostError):
        write(home)
    assert list((outside / ".ssh").iterdir()) == []


@pytest.mark.parametrize("path", ["..", "../outside", "home/../../outside", "/"])
def test_h1_paths_that_leave_the_folder_are_refused(home: Path, path: str) -> None:
    with openat2.directory(home.parent) as root, pytest.raises(LabhostError), openat2.subdirectory(root, path):
        pass


def test_h1_a_link_in_place_of_the_temporary_file_is_replaced(home: Path) -> None:
    outside = home.parents[1] / "outside/authorized_keys"
    (home / ".ssh/.authorized_keys.lab-iam-new").symlink_to(outside)
    assert write(home)
    assert outside.read_text() == "precious" and outside.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("link", [*LINKS, *PROC])
def test_h1_a_link_in_place_of_a_new_folder_is_not_followed(home: Path, link: str) -> None:
    outside = home.parents[1] / "outside"
    (home / ".ssh").rmdir()
    (home / ".ssh").symlink_to(link.format(outside=outside))
    with openat2.directory(home) as fd:
        assert not openat2.make_directory(fd, ".ssh", owner=OWNER, mode=0o700)
    assert outside.stat().st_uid == os.geteuid()


def test_h2_while_a_new_folder_is_swapped_nothing_outside_changes_owner(home: Path) -> None:
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
    with openat2.directory(home) as fd:
        while time.monotonic() < end:
            try:
                made += openat2.make_directory(fd, ".ssh", owner=OWNER, mode=0o700)
            except (LabhostError, OSError):
                continue
    done.set()
    racer.join()
    assert made, "the race did not happen"
    assert outside.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("kind", ["fifo", "file", "device"])
def test_h3_anything_in_place_of_the_folder_is_refused_at_once(home: Path, kind: str) -> None:
    (home / ".ssh").rmdir()
    if kind == "fifo":
        os.mkfifo(home / ".ssh")
    elif kind == "file":
        (home / ".ssh").touch()
    else:
        os.mknod(home / ".ssh", 0o20666, os.makedev(5, 0))
    with ends_within(30), pytest.raises(LabhostError):
        write(home)


def test_h5_a_set_uid_bit_or_another_owner_is_corrected(home: Path) -> None:
    assert write(home)
    target(home).chmod(0o4600)
    assert write(home)
    os.chown(target(home), 0, 0)
    assert write(home)
    status = target(home).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (*OWNER, 0o600)
