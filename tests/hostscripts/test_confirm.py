"""Confirmation codes: bound to person, action and object, valid once and for ten minutes."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from labhost.errors import Refused
from labhost.host.config import Host
from labhost.shell import confirm
from labhost.system.progress import Progress

from tests.hostscripts import hosts
from tests.hostscripts.conftest import SCRIPTS


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(confirm, "_question", lambda _: None)  # these tests are about calls without a terminal
    return hosts.make(tmp_path)


def new_code(host: Host, name: str = "alice", action: str = "rebuild") -> str:
    shown = io.StringIO()
    with pytest.raises(Refused) as refusal:
        confirm.ask(host, name, action, "", "All is lost.", Progress(shown))
    found = re.search(rf"^All is lost\.\nto confirm, .*: ssh gpu17-manage {action} ([a-z0-9]{{8}})$", shown.getvalue())
    assert found, shown.getvalue()
    assert found[1] not in str(refusal.value), "the error is written to the log"
    return found[1]


def accepted(host: Host, code: str, name: str = "alice", action: str = "rebuild") -> bool:
    try:
        confirm.ask(host, name, action, code, "All is lost.", Progress(io.StringIO()))
    except Refused:
        return False
    return True


def test_a_code_is_valid_once(host: Host) -> None:
    code = new_code(host)
    assert accepted(host, code)
    assert not accepted(host, code)


def test_a_code_is_for_its_person_action_and_object(host: Host) -> None:
    assert not accepted(host, new_code(host, "alice"), "bob")
    assert not accepted(host, new_code(host, "alice", "recover monday"), "alice", "recover tuesday")
    assert not accepted(host, new_code(host, "alice", "recover monday"), "alice", "rebuild")


def test_a_wrong_guess_uses_the_code_up(host: Host) -> None:
    code = new_code(host)
    assert not accepted(host, "aaaaaaaa")
    assert not accepted(host, code)


def test_only_the_last_code_is_valid(host: Host) -> None:
    first, second = new_code(host), new_code(host)
    assert first != second
    assert not accepted(host, first)
    assert accepted(host, new_code(host))


def test_a_code_expires(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    code = new_code(host)
    import time

    later = time.time() + confirm.SECONDS + 1
    monkeypatch.setattr(confirm.time, "time", lambda: later)
    assert not accepted(host, code)


def test_a_clock_that_was_set_back_does_not_prolong_a_code(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    code = new_code(host)
    import time

    earlier = time.time() - 3600
    monkeypatch.setattr(confirm.time, "time", lambda: earlier)
    assert not accepted(host, code)


def test_x1_only_the_digest_is_stored_readable_by_root_alone(host: Host) -> None:
    code = new_code(host)
    path = host.paths.state / "confirm/alice"
    assert code not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700


ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from labhost.shell import confirm
print("\\nheard:", confirm._question("Sure? "), flush=True)
"""


def on_a_terminal(typed: bytes) -> str:
    """The question to a process with its own terminal, which is not its standard input."""
    outer, inner = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", ASK, str(SCRIPTS)], stdin=subprocess.DEVNULL, stdout=inner, stderr=inner,
        start_new_session=True, preexec_fn=lambda: __import__("fcntl").ioctl(inner, 0x540E, 0),  # TIOCSCTTY
    )  # fmt: skip
    os.close(inner)
    seen, asked = b"", False
    try:
        while piece := os.read(outer, 4096):
            seen += piece
            if b"Sure? " in seen and not asked:
                os.write(outer, typed)
                asked = True
    except OSError:
        pass
    assert child.wait(timeout=10) == 0, seen
    os.close(outer)
    return seen.decode()


@pytest.mark.parametrize(
    ("typed", "heard"), [(b"gpu17\n", "gpu17"), (b"\n", ""), (b"\x04", ""), (b"a\x1b[2J\n", "a?[2J")]
)
def test_the_question_is_asked_on_the_terminal(typed: bytes, heard: str) -> None:
    assert f"heard: {heard}\r\n" in on_a_terminal(typed)


def test_without_a_terminal_there_is_no_question() -> None:
    words = [sys.executable, "-c", ASK, str(SCRIPTS)]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True, timeout=20
    )
    assert "heard: None" in done.stdout


@pytest.mark.parametrize("answer", ["", "yes", "gpu18", "GPU17"])
def test_any_other_answer_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    host = hosts.make(tmp_path)
    monkeypatch.setattr(confirm, "_question", lambda _: answer)
    with pytest.raises(Refused, match="nothing was changed"):
        confirm.ask(host, "alice", "rebuild", "", "All is lost.", Progress(io.StringIO()))
    monkeypatch.setattr(confirm, "_question", lambda _: "gpu17")
    confirm.ask(host, "alice", "rebuild", "", "All is lost.", Progress(io.StringIO()))
