"""Output for people: colours on a terminal only, and progress lines during long work."""

import io
import os
import pty
from pathlib import Path

import pytest
from labhost.system import progress
from labhost.system.progress import Progress


def terminal_text(term: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TERM", term)
    outer, inner = pty.openpty()
    with os.fdopen(inner, "w") as stream:
        shown = Progress(stream)
        shown.write("warning: old")
        shown.write("port: 1")
        shown.error("no\x1b[2J")
        text = b""
        while text.count(b"\n") < 3:  # reading a terminal may return less than was written
            text += os.read(outer, 4096)
    os.close(outer)
    return text.decode()


def test_colour_is_only_for_terminals_and_escapes_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal_text("xterm", monkeypatch) == "\x1b[33mwarning: old\x1b[0m\r\nport: 1\r\n\x1b[31mno?[2J\x1b[0m\r\n"
    assert "\x1b" not in terminal_text("dumb", monkeypatch)
    stream = io.StringIO()
    Progress(stream).write("warning: old")
    assert stream.getvalue() == "warning: old\n"


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_long_work_is_reported_and_leaves_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TICK", 0.05)
    before = children()
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, Progress(stream).spinner("stopping"):
        output = b""
        while output.count(b"\n") < 2:
            output += os.read(reading, 4096)
    os.close(reading)
    assert output.startswith(b"  stopping: 0 s\n")
    assert children() == before
