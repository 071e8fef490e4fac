"""Commands inside an id map without an account; needs root."""

import os
import signal
from pathlib import Path

import pytest
from labhost.accounts import id_map
from labhost.errors import LabhostError
from labhost.system.user_namespaces import fork_mapped

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SUBUID = 1_200_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """In a folder that only root can enter, as the files of removed people are."""
    folder = tmp_path / "kept"
    folder.mkdir()
    tmp_path.chmod(0o700)
    return folder


def owned(path: Path, uid: int) -> Path:
    path.write_text("x")
    os.chown(path, uid, uid)
    return path


def test_the_command_can_delete_only_files_of_mapped_ids(folder: Path) -> None:
    for name, uid in (("theirs", SUBUID), ("other", SUBUID + 65536)):
        (folder / name).mkdir()
        owned(folder / name / "file", uid)
        os.chown(folder / name, uid, uid)
    assert not id_map.run(SUBUID, folder, ["/usr/bin/find", ".", "-name", "file", "-delete"], timeout=10).ok
    assert not (folder / "theirs/file").exists()
    assert (folder / "other/file").exists()


def test_the_exit_status_of_the_command_is_checked(folder: Path) -> None:
    assert id_map.run(SUBUID, folder, ["/usr/bin/test", "-d", "."], timeout=10).code == 0
    assert id_map.run(SUBUID, folder, ["/usr/bin/test", "-e", "missing"], timeout=10).code == 1
    with pytest.raises(LabhostError, match="missing cannot be run: No such file"):
        id_map.run(SUBUID, folder, ["/missing"], timeout=10)


def test_s5_a_command_that_is_killed_has_not_succeeded(folder: Path) -> None:
    for number in (signal.SIGKILL, signal.SIGSEGV):
        result = id_map.run(SUBUID, folder, ["/bin/sh", "-c", f"kill -{number.value} $$"], timeout=10)
        assert (result.code, result.ok) == (-number, False)


def test_the_command_is_root_of_the_map_and_of_nothing_else(folder: Path) -> None:
    shown = id_map.run(SUBUID, folder, ["/bin/sh", "-c", "id -u; id -G; cat /proc/self/uid_map"], timeout=10)
    assert shown.out.split() == [b"0", b"0", b"0", str(SUBUID).encode(), b"65536"]
    mine = owned(folder / "mine", 0)
    mine.chmod(0o600)
    assert not id_map.run(SUBUID, folder, ["/bin/cat", "mine"], timeout=10).ok


def test_after_the_deadline_the_command_is_killed(folder: Path) -> None:
    assert id_map.run(SUBUID, folder, ["/usr/bin/sleep", "60"], timeout=0.1).error_line == "sleep took too long"


def test_a_child_in_a_new_namespace_has_the_mapped_ids_and_reports_failure(tmp_path: Path) -> None:
    shown = tmp_path / "map"
    shown.touch()
    shown.chmod(0o666)
    child = fork_mapped(SUBUID, 10, lambda: shown.write_text(Path("/proc/self/uid_map").read_text()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shown.read_text().split() == ["0", str(SUBUID), "10"]
    child = fork_mapped(SUBUID, 10, lambda: Path("/missing/file").write_text("x"))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 127
