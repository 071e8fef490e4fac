"""One-time words: bound to person, action and object, good once and for ten minutes."""

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


def word(host: Host, name: str = "alice", action: str = "rebuild") -> str:
    told = io.StringIO()
    with pytest.raises(Refused) as refusal:
        confirm.ask(host, name, action, "", "All is lost.", Progress(told))
    said = re.search(rf"^All is lost\.\nto go on, .*: ssh gpu17-manage {action} ([a-z0-9]{{8}})$", told.getvalue())
    assert said, told.getvalue()
    assert said[1] not in str(refusal.value), "what is raised is logged"
    return said[1]


def good(host: Host, once: str, name: str = "alice", action: str = "rebuild") -> bool:
    try:
        confirm.ask(host, name, action, once, "All is lost.", Progress(io.StringIO()))
    except Refused:
        return False
    return True


def test_a_word_is_good_once(host: Host) -> None:
    once = word(host)
    assert good(host, once)
    assert not good(host, once)


def test_a_word_is_for_its_person_its_action_and_its_object(host: Host) -> None:
    assert not good(host, word(host, "alice"), "bob")
    assert not good(host, word(host, "alice", "recover monday"), "alice", "recover tuesday")
    assert not good(host, word(host, "alice", "recover monday"), "alice", "rebuild")


def test_a_guess_uses_the_word_up(host: Host) -> None:
    once = word(host)
    assert not good(host, "aaaaaaaa")
    assert not good(host, once)


def test_the_last_word_counts(host: Host) -> None:
    first, second = word(host), word(host)
    assert first != second
    assert not good(host, first)
    assert good(host, word(host))


def test_a_word_grows_old(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    once = word(host)
    import time

    later = time.time() + confirm.SECONDS + 1
    monkeypatch.setattr(confirm.time, "time", lambda: later)
    assert not good(host, once)


def test_a_clock_that_was_set_back_keeps_no_word_alive(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    once = word(host)
    import time

    earlier = time.time() - 3600
    monkeypatch.setattr(confirm.time, "time", lambda: earlier)
    assert not good(host, once)


def test_x1_only_the_digest_is_kept_and_for_root_alone(host: Host) -> None:
    once = word(host)
    path = host.paths.state / "confirm/alice"
    assert once not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700


ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from labhost.shell import confirm
print("\\nheard:", confirm._question("Sure? "), flush=True)
"""


def on_a_terminal(typed: bytes) -> str:
    """The question, put to a process with a terminal of its own; standard input is something else."""
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
