"""Cases L1 and L2: the words of the login shell, by both of their readers: login.bash, and labhost behind sudo."""

import os
import random
import subprocess
import tempfile
from pathlib import Path

import pytest
from labhost.errors import BadRequest, Busy, LabhostError, NotRegistered, PortalUnavailable, Refused
from labhost.shell import commands

from tests.hostscripts.conftest import SCRIPTS

LINES = 100_000
# The login shell without its last line, which would act: it reads lines that end in NUL, and says what it understood.
READER = """
. <(sed '$d' "$1")
while IFS= read -r -d '' line; do
  if understand "$line"; then printf '%s %s\\0' "$verb" "$arguments"; else printf '\\0'; fi
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
    """What login.bash understands of each line: `verb arguments`, or nothing."""
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
    """Whether labhost accepts this line, if login.bash had cut it into verb and arguments."""
    verb, space, arguments = line.partition(b" ")
    try:
        commands.parse(verb.decode("latin-1"), arguments.decode("latin-1"))
    except BadRequest:
        return line == b"help"  # which login.bash answers itself
    return bool(arguments) or not space


def test_l1_the_whole_grammar_is_understood() -> None:
    understood = bash([line.encode() for line in ACCEPTED])
    assert [answer.decode().strip() for answer in understood] == ACCEPTED
    assert all(python(line.encode()) for line in ACCEPTED)


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: repr(line[:20]))
def test_l1_l2_whatever_is_near_it_is_not(line: str) -> None:
    assert bash([line.encode()]) == [b""]
    assert not python(line.encode())


def mutated(chance: random.Random) -> bytes:
    """A line of the grammar that one to four accidents have happened to, or a heap of bytes."""
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
def test_l1_100_000_lines_are_understood_alike_by_both_readers() -> None:
    chance = random.Random(20261125)
    lines = [mutated(chance) for _ in range(LINES)]
    understood = bash(lines)
    assert len(understood) == LINES
    accepted = 0
    for line, answer in zip(lines, understood, strict=True):
        assert bool(answer) == python(line), line
        if answer:
            accepted += 1
            assert answer.strip() == line, "what is passed on is not what was said"
    assert 1000 < accepted < LINES // 2, "the accidents are too many or too few to say anything"


def test_l1_a_line_that_never_comes_is_no_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """labhost waits for its line only so long; and of a long one it reads no more than it needs."""
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


def test_help_and_the_grammar_of_both_readers_have_the_same_words() -> None:
    told = subprocess.run([SCRIPTS / "login.bash", "-c", "help"], capture_output=True, text=True, check=True).stdout
    words = {line.split()[0] for line in told.partition("\n\n")[0].splitlines()}
    assert words == {*commands.WORDS, "help"} == {*commands.GRAMMAR, "help"}
    rules = (SCRIPTS / "lab-iam.sudoers").read_text()
    assert {
        line.split()[2].rstrip(",") for line in rules.split("/usr/local/sbin/") if line.startswith("labhost user")
    } == {*commands.WORDS}
