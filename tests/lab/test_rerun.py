"""What fails is run once more, with a real pytest in a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.rerun import Part, run_part, verdict

TESTS = """
import pathlib, pytest
folder = pathlib.Path(__file__).parent

def test_good():
    with (folder / "runs").open("a") as runs:
        runs.write("good ")

def test_bad():
    assert False

@pytest.mark.parametrize("word", ["a b", "c::d"])
def test_fails_once(word):
    mark = folder / f"mark {word}"
    seen = mark.exists()
    mark.touch()
    assert seen

@pytest.fixture
def broken_once():
    yield
    test_fails_once("end of a fixture")

def test_fixture(broken_once):
    pass
"""


def run_in(folder: Path, *wanted: str, processes: int = 0) -> Part:
    """A part that is pytest over TESTS, without the options and plugins of this repository."""
    (folder / "test_it.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "DJANGO"))}

    def run(*arguments: str) -> int:
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:django", *arguments]
        return subprocess.run(words, cwd=folder, env=env, stdout=subprocess.DEVNULL, timeout=120).returncode

    out = folder / "out"
    out.mkdir()
    return run_part("a part", run, out, "-n", str(processes), "-k", " or ".join(wanted))


def test_passing_tests_are_not_run_again(tmp_path: Path) -> None:
    part = run_in(tmp_path, "test_good")
    assert (part.code, part.failed, part.unsteady) == (0, (), ())
    assert part.summary.startswith("a part: 1 test in ") and (tmp_path / "runs").read_text() == "good "


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
def test_a_test_that_fails_once_is_unsteady_and_one_that_fails_twice_has_failed(tmp_path: Path, processes: int) -> None:
    part = run_in(tmp_path, "test_good", "test_bad", "test_fails_once", processes=processes)
    assert part.code == 1 and part.failed == ("test_it.py::test_bad",)
    assert sorted(part.unsteady) == ["test_it.py::test_fails_once[a b]", "test_it.py::test_fails_once[c::d]"]
    assert "2 passed" not in part.summary and "1 passed, 3 failed" in part.summary
    assert (tmp_path / "runs").read_text() == "good ", "only what failed is run once more"


def test_a_failing_fixture_teardown_counts_too(tmp_path: Path) -> None:
    part = run_in(tmp_path, "test_fixture")
    assert (part.code, part.failed, part.unsteady) == (0, (), ("test_it.py::test_fixture",))


def test_a_part_that_does_not_run_has_failed(tmp_path: Path) -> None:
    part = run_in(tmp_path, "test_there_is_none_of_this_name")
    assert part.code == 5


def test_a_pytest_that_is_killed_has_failed(tmp_path: Path) -> None:
    part = run_part("a part", lambda *_: -9, tmp_path)
    assert part == Part(-9, "a part: FAILED: pytest did not end by itself")


def test_the_report_names_failed_and_unsteady_tests() -> None:
    parts = [Part(0, "one: 3 tests", unsteady=("a.py::test_x",)), Part(1, "two: 1 test", failed=("b.py::test_y",))]
    assert verdict(parts) == (
        1,
        ["one: 3 tests", "two: 1 test", "failed: b.py::test_y", "unsteady: a.py::test_x"],
    )


@pytest.mark.parametrize(("count", "code"), [(0, 0), (2, 0), (3, 1)])
def test_more_than_two_unsteady_tests_are_a_failure(count: int, code: int) -> None:
    parts = [Part(0, "one", unsteady=(f"test_{number}",)) for number in range(count)]
    assert verdict(parts)[0] == code
