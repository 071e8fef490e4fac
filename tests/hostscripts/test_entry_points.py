"""Cases L1, L2, R1 and R5: what the real login shells refuse before they call sudo."""

import subprocess
from pathlib import Path

import pytest

from tests.hostscripts.conftest import SCRIPTS

FORCED = "/home/register/register.bash alice"
SHELLS = ["login.bash", "iam-shell.bash", "register.bash"]
WORDS = [
    "",
    " ",
    "start ",
    " start",
    "START",
    "start\n",
    "-c",
    "--help",
    "port 08",
    "port 65536",
    "port -1",
    "port 80;id",
]
EVIL = ["touch {0}", "$(touch {0})", "`touch {0}`", "start; touch {0}", "start\ntouch {0}", "start && touch {0}", "*"]


def run(script: str, *words: str, requested: str | None = None, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {"BASH_ENV": str(folder / "rc"), "ENV": str(folder / "rc")}
    (folder / "rc").write_text(f"touch {folder / 'evil'}\n")
    if requested is not None:
        env["SSH_ORIGINAL_COMMAND"] = requested
    return subprocess.run([SCRIPTS / script, *words], env=env, capture_output=True, text=True, timeout=10, cwd=folder)


def refused(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "evil").exists()


@pytest.mark.parametrize("word", EVIL)
@pytest.mark.parametrize("script", ["login.bash", "iam-shell.bash"])
def test_l1_commands_must_match_exactly(tmp_path: Path, script: str, word: str) -> None:
    refused(run(script, "-c", word.format(tmp_path / "evil"), folder=tmp_path), tmp_path)


@pytest.mark.parametrize("word", EVIL)
def test_r1_the_request_is_never_evaluated(tmp_path: Path, word: str) -> None:
    request = word.format(tmp_path / "evil")
    refused(run("register.bash", "-c", FORCED, requested=request, folder=tmp_path), tmp_path)


@pytest.mark.parametrize("forced", ["/bin/sh", "/home/register/register.bash alice; id", "register.bash alice", ""])
def test_r1_another_forced_command_is_refused(tmp_path: Path, forced: str) -> None:
    refused(run("register.bash", "-c", forced, requested="alice", folder=tmp_path), tmp_path)


def test_r2_a_name_other_than_the_owner_of_the_key_is_refused(tmp_path: Path) -> None:
    done = run("register.bash", "-c", FORCED, requested="bob", folder=tmp_path)
    refused(done, tmp_path)
    assert "alice" in done.stderr


@pytest.mark.parametrize("word", [*WORDS, "x" * 100_000, "st*rt", "status extra"], ids=lambda word: repr(word[:12]))
@pytest.mark.parametrize("script", SHELLS)
def test_l1_l2_near_misses_of_the_grammar_are_refused(tmp_path: Path, script: str, word: str) -> None:
    refused(run(script, "-c", word, requested="start", folder=tmp_path), tmp_path)


@pytest.mark.parametrize("words", [["start"], ["-c"], ["-i"], ["-c", "start", "x"], ["-l", "start"], ["--", "start"]])
@pytest.mark.parametrize("script", SHELLS)
def test_l1_a_wrong_number_of_arguments_is_refused(tmp_path: Path, script: str, words: list[str]) -> None:
    refused(run(script, *words, folder=tmp_path), tmp_path)


@pytest.mark.parametrize(
    "request_", [None, "", "alice\n", "alice x", "Alice", "-rf", "..", "x" * 100_000, "al\x1b[2Jice"], ids=repr
)
def test_r1_r5_a_request_that_is_not_the_name_is_refused(tmp_path: Path, request_: str | None) -> None:
    done = run("register.bash", "-c", FORCED, requested=request_, folder=tmp_path)
    refused(done, tmp_path)
    assert done.stderr.strip().isprintable() and len(done.stderr) < 200


@pytest.mark.parametrize(
    "forced", [FORCED + "\n", f"{FORCED}\nid", FORCED + " ", f"{FORCED} -x", FORCED.replace("alice", "-rf")]
)
def test_r1_a_nearly_right_forced_command_is_refused(tmp_path: Path, forced: str) -> None:
    refused(run("register.bash", "-c", forced, requested="alice", folder=tmp_path), tmp_path)


def test_l1_an_unknown_verb_of_iam_is_answered_with_one_object(tmp_path: Path) -> None:
    done = run("iam-shell.bash", "-c", "status; id", folder=tmp_path)
    assert len(done.stdout.splitlines()) == 1 and '"bad_request"' in done.stdout
