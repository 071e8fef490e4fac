"""Child processes: a deadline that holds, output that is bounded, an environment that is clean."""

import os
import signal
from pathlib import Path

import pytest
from labhost.errors import LabhostError
from labhost.system.processes import run

from tests.lab.waiting import ends_within, eventually


def test_output_status_and_complaint() -> None:
    done = run(["/bin/sh", "-c", "echo out; echo first >&2; echo last >&2; exit 3"], timeout=10)
    assert (done.out, done.code, done.ok, done.error_line) == (b"out\n", 3, False, "last")
    with pytest.raises(LabhostError, match="making tea: last"):
        done.check("making tea")


def test_what_takes_too_long_is_killed_with_its_children() -> None:
    with ends_within(60):
        done = run(["/bin/sh", "-c", "sleep 600 & echo $!; wait"], timeout=0.5)
    assert done.timed_out and not done.ok
    eventually(lambda: not _lives(int(done.out)), "the end of the child")


def _lives(pid: int) -> bool:
    try:
        with Path(f"/proc/{pid}/stat").open() as status:
            return status.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_descendant_that_keeps_the_output_open_is_not_waited_for() -> None:
    done = run(["/bin/sh", "-c", "setsid sleep 600 & echo $!"], timeout=20)
    assert done.ok and _lives(int(done.out))
    os.kill(int(done.out), signal.SIGKILL)


def test_endless_output_is_cut_and_ends_at_the_deadline() -> None:
    done = run(["/bin/cat", "/dev/zero"], timeout=0.5, most=1000)
    assert done.timed_out and done.cut and len(done.out) == 1000


def test_the_environment_is_clean_and_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_TEST", "x")
    shown = run(["/usr/bin/env"], timeout=10).out.decode()
    assert "LD_PRELOAD_TEST" not in shown and "PATH=/usr/local/sbin" in shown
    assert not run(["/bin/sh", "-c", ": < /dev/tty"], timeout=10).ok


def test_input_of_any_size_arrives() -> None:
    data = os.urandom(300_000)
    assert run(["/bin/cat"], timeout=10, stdin=data).out == data


def test_a_complaint_is_printable() -> None:
    done = run(["/bin/sh", "-c", r"printf '\033[2Jboo' >&2; exit 1"], timeout=10)
    assert done.error_line == "?[2Jboo"
