"""Cases H1-H5 at the smallest scale: one folder that an enemy controls, beside one that must stay as it is."""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from labhost import beneath
from labhost.errors import LabhostError

pytestmark = pytest.mark.root
OWNER = (65_000, 65_001)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "root/home/.ssh").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/authorized_keys").write_text("precious")
    return tmp_path / "root/home"


def write(home: Path, text: str = "a key\n") -> bool:
    with beneath.directory(home.parent) as root, beneath.inner(root, "home/.ssh") as folder:
        return beneath.replace_file(folder, "authorized_keys", text, owner=OWNER, mode=0o600)


def target(home: Path) -> Path:
    return home / ".ssh/authorized_keys"


LINKS = ["{outside}", "../../outside", "/nowhere", "/proc/self/cwd"]


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


def test_h2_swapped_at_full_speed_nothing_lands_outside(home: Path) -> None:
    outside = home.parents[1] / "outside"
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            (home / ".ssh").rename(home / "kept")
            (home / ".ssh").symlink_to(outside)
            (home / ".ssh").unlink()
            (home / "kept").rename(home / ".ssh")

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
    assert written and refused, "the race was not run"
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
def test_h3_h4_what_stands_in_its_place_is_replaced_at_once(home: Path, kind: str) -> None:
    OBSTACLES[kind](target(home))
    began = time.monotonic()
    assert write(home)
    assert time.monotonic() - began < 2
    assert target(home).read_text() == "a key\n"


def test_h3_a_directory_in_its_place_fails_and_leaves_nothing_behind(home: Path) -> None:
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


def test_h5_owner_and_mode_are_those_that_were_asked_for(home: Path) -> None:
    assert write(home)
    status = target(home).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (*OWNER, 0o600)
    assert not write(home), "nothing differs, and yet it was written again"
