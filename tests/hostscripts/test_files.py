"""Reading files of root's up to a limit."""

import os
from pathlib import Path

import pytest
from labhost.errors import LabhostError
from labhost.system import files


def test_n7_a_short_file_is_read_without_the_memory_of_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("short")
    assert files.read_text(path, 1 << 50) == "short"


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(2 * files.PIECE).hex().encode())
    assert files.read_text(path, 4 * files.PIECE) == path.read_text()
    with pytest.raises(LabhostError, match="longer than"):
        files.read_text(path, 4 * files.PIECE - 1)
    assert files.read_text(tmp_path / "missing") is None
