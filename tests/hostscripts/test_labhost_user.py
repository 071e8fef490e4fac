"""labhost behind sudo: errors of the login-shell commands, and who may run them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from labhost.errors import BadRequest
from labhost.shell import commands

from tests.hostscripts import hosts


def test_labhost_without_arguments_prints_the_usage() -> None:
    with pytest.raises(BadRequest, match=re.escape("usage: port | port N |")) as refusal:
        commands.parse("port", "08")
    assert (refusal.value.reason, refusal.value.params) == ("wrong_arguments", {"command": "port"})


@pytest.fixture
def as_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """labhost behind sudo, on a server without accounts; the argument is the line that login.bash writes."""
    host = hosts.make(tmp_path)
    monkeypatch.setattr(commands.config, "load", lambda: host)
    monkeypatch.setenv("SUDO_UID", "4242")
    return lambda line: monkeypatch.setattr(commands, "read_line", lambda: line)


@pytest.mark.parametrize(
    ("command", "line", "status", "text"),
    [
        ("status", "", commands.REFUSED, "you have no container on gpu17 yet: ssh register@gpu17-manage NAME"),
        ("port", "080", commands.WRONG_USE, "wrong arguments; usage: port | port N | port N SERVERPORT"),
    ],
)
def test_an_error_is_one_line_and_an_exit_status(
    as_person: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    command: str,
    line: str,
    status: int,
    text: str,
) -> None:
    as_person(line)
    assert commands.main([command]) == status
    shown = capsys.readouterr()
    assert shown.out.startswith(text) and shown.out.count("\n") == 1 and shown.err == ""


def test_for_a_program_errors_go_to_standard_error(
    as_person: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    as_person("--json")
    assert commands.main(["status"]) == commands.REFUSED
    shown = capsys.readouterr()
    assert shown.out == "" and "no container" in shown.err


@pytest.mark.parametrize("uid", ["", "0", "-1", "4242x", "\u0664"])
def test_without_the_uid_of_a_person_nothing_runs(
    as_person: Callable[[str], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, uid: str
) -> None:
    as_person("")
    monkeypatch.setenv("SUDO_UID", uid)
    assert commands.main(["stop"]) == commands.REFUSED
    assert "through their login shell" in capsys.readouterr().out
