"""How figures, tables and lines look."""

import io
import json
import os
import pty
from pathlib import Path

import pytest
from labhost.system import formatting, progress
from labhost.system.progress import Progress


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KB"), (1536, "1.5 KB"), (200 << 30, "200 GB"), (5 << 50, "5120 TB")],
)
def test_sizes(number: int, text: str) -> None:
    assert formatting.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (59, "just now"), (60, "1 minute ago"), (7199, "1 hour ago"), (200_000, "2 days ago")],
)
def test_ages(seconds: int, text: str) -> None:
    assert formatting.age(1_000_000, 1_000_000 + seconds) == text


def test_numbers_stand_to_the_right_in_a_table() -> None:
    assert formatting.table(("name", "port"), [("alice", 80), ("b", 30000)]) == [
        "name    port",
        "alice     80",
        "b      30000",
    ]
    assert formatting.table(("name", "port"), []) == ["name  port"]


def test_a_document_is_one_line_with_a_version() -> None:
    text = formatting.json_line(ports=[1], name="a\nb")
    assert "\n" not in text and json.loads(text) == {"version": 1, "ports": [1], "name": "a\nb"}


def terminal_text(term: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TERM", term)
    outer, inner = pty.openpty()
    with os.fdopen(inner, "w") as stream:
        say = Progress(stream)
        say.line("warning: old")
        say.line("port: 1")
        say.refusal("no\x1b[2J")
        text = b""
        while text.count(b"\n") < 3:  # a terminal gives what it has, which may be less than was written
            text += os.read(outer, 4096)
    os.close(outer)
    return text.decode()


def test_colour_only_on_a_terminal_and_nobody_elses_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal_text("xterm", monkeypatch) == "\x1b[33mwarning: old\x1b[0m\r\nport: 1\r\n\x1b[31mno?[2J\x1b[0m\r\n"
    assert "\x1b" not in terminal_text("dumb", monkeypatch)
    stream = io.StringIO()
    Progress(stream).line("warning: old")
    assert stream.getvalue() == "warning: old\n"


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_what_takes_long_says_so_and_its_child_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TICK", 0.05)
    before = children()
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, Progress(stream).during("stopping"):
        said = b""
        while said.count(b"\n") < 2:
            said += os.read(reading, 4096)
    os.close(reading)
    assert said.startswith(b"  stopping: 0 s\n")
    assert children() == before
