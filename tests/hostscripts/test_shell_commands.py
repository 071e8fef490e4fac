"""Cases L1 and L2: the login-shell commands, by both of their readers: login.bash, and labhost behind sudo."""

import json
import os
import random
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from labhost.errors import BadRequest, Busy, LabhostError, NotRegistered, PortalUnavailable, Refused
from labhost.shell import actions, commands, entry_points

from tests.hostscripts import hosts
from tests.hostscripts.conftest import SCRIPTS

LINES = 100_000
# The login shell without its last line, which would act. It reads lines that end in NUL, and prints those it accepts.
READER = """
. <(sed '$d' "$1")
labhost_user() { printf '%s %s\\0' "$1" "$2"; }
do_console() { printf 'console \\0'; }
do_help() { printf 'help \\0'; }
while IFS= read -r -d '' line; do
  if is_command "$line"; then run_command "$line"; else printf '\\0'; fi
done
"""
ACCEPTED = [
    "start",
    "stop",
    "restart",
    "status",
    "status --json",
    "console",
    "top",
    "top --json",
    "help",
    "port",
    "port --json",
    "port 1",
    "port 80",
    "port 65535",
    "port 9999 30000",
    "port -d 8888",
    "snapshot",
    "snapshot before-the-paper_2.v1",
    "snapshots",
    "snapshots --json",
    "recover monday",
    "recover monday abcd2345",
    "rebuild",
    "rebuild abcd2345",
]
REFUSED = [
    "",
    "port 08",
    "port 0",
    "port 65536",
    "port 99999",
    "port -1",
    "port +1",
    "port 80;id",
    "port 80 ",
    "port  80",
    "port 80 30000 1",
    "port 80\n",
    "port \u0668\u0660",
    "port 1e3",
    "port -d",
    "port -d 08",
    "port -d 80 90",
    "port --json 80",
    "start --json",
    "stop now",
    "snapshot ../x",
    "snapshot /etc",
    "snapshot -x",
    "snapshot *",
    "snapshot .x",
    "snapshot " + "x" * 65,
    "snapshot a b",
    "recover",
    "recover -f",
    "recover a abcd234",
    "recover a abcd23456",
    "recover a ABCD2345",
    "rebuild now",
    "rebuild --yes",
    "console id",
    "console -c id",
    "help me",
    "status --json --json",
    "Status",
    "top\t--json",
    "$(id)",
    "`id`",
    "start;id",
    "start\nid",
    "*",
    "sta?t",
    "[s]tart",
    "{start,stop}",
    "~",
    "-c",
    "--help",
    "labhost user start",
]


def bash(lines: list[bytes]) -> list[bytes]:
    """What login.bash makes of each line: `command arguments`, or nothing."""
    words = ["/bin/bash", "-p", "-c", READER, "bash", str(SCRIPTS / "login.bash")]
    with tempfile.TemporaryFile() as said:  # a pipe would be read byte by byte
        said.write(b"".join(line + b"\0" for line in lines))
        said.seek(0)
        done = subprocess.run(
            words, stdin=said, capture_output=True, timeout=120, check=True, env={"PATH": "/usr/bin:/bin"}
        )
    assert done.stderr == b""
    return done.stdout.split(b"\0")[:-1]


def python(line: bytes) -> bool:
    """Whether labhost accepts this line, if login.bash had cut it into command and arguments."""
    verb, space, arguments = line.partition(b" ")
    try:
        commands.parse(verb.decode("latin-1"), arguments.decode("latin-1"))
    except BadRequest:
        return line == b"help"  # which login.bash answers itself
    return bool(arguments) or not space


def test_l1_every_form_of_every_command_is_accepted() -> None:
    understood = bash([line.encode() for line in ACCEPTED])
    assert [answer.decode().strip() for answer in understood] == ACCEPTED
    assert all(python(line.encode()) for line in ACCEPTED)


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: repr(line[:20]))
def test_l1_l2_lines_that_are_almost_commands_are_refused(line: str) -> None:
    assert bash([line.encode()]) == [b""]
    assert not python(line.encode())


def mutated(chance: random.Random) -> bytes:
    """An accepted line with one to four random changes, or random bytes."""
    if chance.random() < 0.1:
        return bytes(chance.choices(range(1, 256), k=chance.randint(0, 60)))
    line = bytearray(chance.choice(ACCEPTED).encode())
    for _ in range(chance.randint(1, 4)):
        place = chance.randint(0, len(line))
        piece = chance.choice(PIECES) if chance.random() < 0.5 else bytes([chance.randint(1, 255)])
        line[place : place + chance.randint(0, 2)] = piece
    return bytes(line)


PIECES = [
    b" ",
    b"  ",
    b"\n",
    b"\t",
    b"0",
    b"9",
    b"65536",
    b"-d ",
    b"--json",
    b";id",
    b"$(id)",
    b"*",
    b"../",
    b"",
    b"\xc2\xa0",
]


@pytest.mark.slow
def test_l1_both_readers_agree_on_100_000_lines() -> None:
    chance = random.Random(20261125)
    lines = [mutated(chance) for _ in range(LINES)]
    understood = bash(lines)
    assert len(understood) == LINES
    accepted = 0
    for line, answer in zip(lines, understood, strict=True):
        assert bool(answer) == python(line), line
        if answer:
            accepted += 1
            assert answer.strip() == line, "what is passed on differs from the line"
    assert 1000 < accepted < LINES // 2, "too many or too few changes to prove anything"


def test_l1_a_line_that_never_comes_means_no_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """labhost waits for a short time only, and reads no more of a long line than it needs."""
    monkeypatch.setattr(commands, "LINE_SECONDS", 0.1)
    reading, writing = os.pipe()
    monkeypatch.setattr(commands, "STDIN", reading)
    assert commands.read_line() == ""
    os.write(writing, b"8888\n")
    assert commands.read_line() == "8888"
    os.write(writing, b"8" * 5000)
    assert len(commands.read_line()) == commands.LINE_MOST + 1
    for fd in (reading, writing):
        os.close(fd)


@pytest.mark.parametrize(
    ("error", "status"),
    [(LabhostError, 1), (PortalUnavailable, 1), (BadRequest, 2), (Refused, 3), (NotRegistered, 3), (Busy, 4)],
)
def test_exit_statuses_are_those_of_the_help(error: type[LabhostError], status: int) -> None:
    assert commands.exit_status(error("x")) == status


@pytest.mark.parametrize("name", entry_points.GENERATED)
def test_the_entry_points_are_generated_from_the_table(name: str) -> None:
    """If this fails: cd hostscripts && python3 -m labhost.shell.entry_points"""
    text = (SCRIPTS / name).read_text()
    assert text == entry_points.insert(text, entry_points.GENERATED[name]())


def test_a_file_without_a_place_for_the_generated_part_is_refused() -> None:
    with pytest.raises(ValueError, match="marks"):
        entry_points.insert("#!/bin/bash\n", "part")


def test_sudo_allows_exactly_the_commands_of_the_table() -> None:
    words = ["cvtsudoers", "-f", "json", str(SCRIPTS / "lab-iam.sudoers")]
    policy = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=20).stdout)
    allowed = [rule["command"] for rule in policy["Command_Aliases"]["LAB_IAM_PEOPLE"]]
    assert allowed == [f"/usr/local/sbin/labhost user {command.name}" for command in commands.COMMANDS]


def test_the_help_lists_every_command_and_every_program_form() -> None:
    shown = login("-c", "help").stdout
    usage, _, rest = shown.partition("\n\n")
    listed = {line.split()[0] for line in usage.splitlines()}
    assert listed == {line.split()[0] for line in ACCEPTED}, "a command has no accepted line in this test"
    assert "status, port, snapshots and top take --json" in rest


def login(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPTS / "login.bash", *words], capture_output=True, text=True, timeout=10)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("stat", "unknown command 'stat'; did you mean 'status'?"),
        ("startt", "unknown command 'startt'; did you mean 'start'?"),
        ("ls", "unknown command 'ls'; for the list of commands, run: help"),
        ("$(id)", "unknown command; for the list of commands, run: help"),
        ("start now", "wrong arguments; usage: start; for the list of commands, run: help"),
        ("recover", "wrong arguments; usage: recover NAME; for the list of commands, run: help"),
        ("top -x", "wrong arguments; usage: top | top --json; for the list of commands, run: help"),
    ],
)
def test_l2_a_refusal_says_what_to_do(line: str, answer: str) -> None:
    done = login("-c", line)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", answer + "\n")


def test_labhost_itself_names_the_usage() -> None:
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


def test_a_json_answer_is_one_line_with_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    actions.answer(ports=[1], name="a\nb")
    text = capsys.readouterr().out
    assert text.count("\n") == 1 and json.loads(text) == {"version": 1, "ports": [1], "name": "a\nb"}
