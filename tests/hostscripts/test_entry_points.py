"""Cases L1 and R1: the real login shells, in all that they refuse before sudo is reached."""

import subprocess
from pathlib import Path

import pytest

from tests.hostscripts.conftest import SCRIPTS

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
def test_l1_words_are_exact(tmp_path: Path, script: str, word: str) -> None:
    refused(run(script, "-c", word.format(tmp_path / "evil"), folder=tmp_path), tmp_path)


@pytest.mark.parametrize("word", EVIL)
def test_r1_the_request_is_never_evaluated(tmp_path: Path, word: str) -> None:
    forced = "/home/register/register.bash alice"
    request = word.format(tmp_path / "evil")
    refused(run("register.bash", "-c", forced, requested=request, folder=tmp_path), tmp_path)


@pytest.mark.parametrize("forced", ["/bin/sh", "/home/register/register.bash alice; id", "register.bash alice", ""])
def test_r1_another_forced_command_is_refused(tmp_path: Path, forced: str) -> None:
    refused(run("register.bash", "-c", forced, requested="alice", folder=tmp_path), tmp_path)


def test_r2_another_name_than_the_keys_is_refused(tmp_path: Path) -> None:
    done = run("register.bash", "-c", "/home/register/register.bash alice", requested="bob", folder=tmp_path)
    refused(done, tmp_path)
    assert "alice" in done.stderr
