"""Lines go from a key file in a folder whose owner is hostile, without room and without harm to anything else."""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from labhost.keys.take_away import take_away
from labhost.system import openat2

OLD, KEPT, NEW = "ssh-ed25519 AAAAold me", "ssh-ed25519 AAAAkept me", "ssh-ed25519 AAAAnew me"
MOST = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    with openat2.directory(tmp_path) as fd:
        yield fd


def take(folder: int, *lines: str) -> bool:
    return take_away(folder, "authorized_keys", "".join(f"{line}\n" for line in lines), MOST)


def test_z1_each_other_line_is_struck_out_in_place(folder: int, tmp_path: Path) -> None:
    path = tmp_path / "authorized_keys"
    path.write_text(f"{OLD}\n{KEPT}\n\n# note\n \t{OLD}\n{OLD}")
    before = path.stat()
    assert take(folder, KEPT)
    assert path.read_text() == f"#{OLD[1:]}\n{KEPT}\n\n# note\n#\t{OLD}\n#{OLD[1:]}"
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    assert take(folder) and KEPT not in path.read_text()


def test_z1_it_tells_whether_a_key_is_missing(folder: int, tmp_path: Path) -> None:
    assert take(folder) and not take(folder, NEW), "without a file"
    (tmp_path / "authorized_keys").write_text(f"{OLD}\n{KEPT}\n")
    assert not take(folder, KEPT, NEW)
    assert take(folder, KEPT) and not take(folder, OLD), "a key that was struck out is not there"


def test_z1_a_file_without_other_lines_is_not_touched(folder: int, tmp_path: Path) -> None:
    path = tmp_path / "authorized_keys"
    path.write_text(f"{KEPT}\n")
    before = path.stat().st_mtime_ns
    assert not take(folder, KEPT, NEW) and path.stat().st_mtime_ns == before


def test_z1_what_is_no_small_file_of_its_own_is_removed_and_nothing_else_changes(folder: int, tmp_path: Path) -> None:
    path, secret = tmp_path / "authorized_keys", tmp_path / "secret"
    secret.write_text(f"{OLD}\n")
    makers = {
        "link": lambda: path.symlink_to(secret),
        "hard link": lambda: os.link(secret, path),
        "fifo": lambda: os.mkfifo(path),
        "large": lambda: path.write_text("x" * (MOST + 1)),
    }
    for name, make in makers.items():
        make()
        assert take(folder) and not os.path.lexists(path), name
        assert secret.read_text() == f"{OLD}\n", name


def test_z1_a_sparse_file_is_not_read(folder: int, tmp_path: Path) -> None:
    path = tmp_path / "authorized_keys"
    path.touch()
    os.truncate(path, 1 << 40)
    assert take(folder) and not path.exists()


def test_z1_a_folder_of_that_name_is_an_error(folder: int, tmp_path: Path) -> None:
    (tmp_path / "authorized_keys").mkdir()
    with pytest.raises(OSError) as caught:
        take(folder)
    assert caught.value.errno in (errno.EISDIR, errno.EPERM)


def test_z1_a_lease_does_not_delay_it(folder: int, tmp_path: Path) -> None:
    """A lease on a file delays everybody who opens it, unless they open it without waiting."""
    path = tmp_path / "authorized_keys"
    path.write_text(f"{OLD}\n")
    with path.open("r+") as holder:
        fcntl.fcntl(holder, fcntl.F_SETSIG, 23)  # SIGURG, which is ignored
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert take(folder) and not path.exists()
