"""Case N7: how many processes of the portal's verbs wait at once, with real processes."""

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from labhost.errors import Busy
from labhost.protocol import seats

from tests.hostscripts import hosts
from tests.hostscripts.conftest import BEFORE, request
from tests.lab.waiting import ends_within, eventually

ROOT = Path(__file__).resolve().parents[2] / "hostscripts"
# set_authorized_keys.py with another folder, as root would run it.
PROGRAM = f"""
import os, sys, time
from pathlib import Path
os.geteuid = lambda: 0
sys.path.insert(0, {str(ROOT)!r})
from labhost.host import config
from labhost.keys import set_keys
from labhost.protocol import session, seats
folder = Path(sys.argv[1])
seats.FILE = folder / "seats"
texts = {hosts.VALUES!r}
paths = config.Paths(config=folder / "host.conf", state=folder / "state", home=folder / "home")
config.load = lambda: config.Host(config.parse(texts), paths)
if len(sys.argv) > 2:
    real = set_keys.set_keys
    def slow(*arguments):
        (folder / "working").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
        return real(*arguments)
    set_keys.set_keys = slow
session.main()
"""


class Sessions(list[subprocess.Popen[bytes]]):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def open(self, *words: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-IS", "-c", PROGRAM, str(self.folder), *words]
        self.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return self[-1]

    def ask(self, session: subprocess.Popen[bytes], revision: int) -> bytes:
        assert session.stdin and session.stdout
        session.stdin.write(hosts.frame_of(request(revision, BEFORE)))
        session.stdin.flush()
        return session.stdout.readline()

    @property
    def running(self) -> list[int]:
        return [number for number, session in enumerate(self) if session.poll() is None]


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    hosts.make(tmp_path)
    found = Sessions(tmp_path)
    yield found
    for session in found:
        session.kill()
        session.communicate()


def test_n7_of_many_idle_sessions_the_newest_stay(sessions: Sessions) -> None:
    for number in range(12):
        assert b'"ok":true' in sessions.ask(sessions.open(), number + 1)
    most = len(seats.SESSIONS)
    assert eventually(lambda: len(sessions.running) == most and sessions.running, "the oldest end") == list(
        range(12 - most, 12)
    )
    assert b'"ok":true' in sessions.ask(sessions[-1], 13), "the newest was ended"
    assert sessions[0].returncode == 0, "an idle session ends as if its input had ended"


def test_n7_a_session_that_works_is_ended_after_its_answer(sessions: Sessions) -> None:
    busy = sessions.open("slow")
    assert busy.stdin and busy.stdout
    busy.stdin.write(hosts.frame_of(request(1, BEFORE)))
    busy.stdin.flush()
    eventually((sessions.folder / "working").exists, "the first session at work")
    for _ in seats.SESSIONS:
        sessions.open()
    eventually(lambda: len(sessions.running) == len(seats.SESSIONS), "the oldest idle one ends")
    assert 0 in sessions.running
    (sessions.folder / "go").touch()
    assert b'"ok":true' in busy.stdout.readline()


def test_n7_processes_that_do_not_end_refuse_the_next_one_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "FILE", tmp_path / "seats")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(ROOT), str(tmp_path / "seats")], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        with ends_within(10), pytest.raises(Busy), seats.hold(range(1), seconds=0.5):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with seats.hold(range(1), seconds=0.5):
        pass


HOLDER = """
import signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from labhost.protocol import seats
signal.signal(signal.SIGTERM, signal.SIG_IGN)
seats.FILE = Path(sys.argv[2])
with seats.hold(range(1)):
    print("held", flush=True)
    time.sleep(60)
"""


def test_n7_without_a_place_for_the_seats_requests_are_still_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "FILE", tmp_path / "missing/seats")
    with seats.hold(range(1), seconds=0.1):
        time.sleep(0)


@pytest.mark.slow
def test_n7_a_request_that_would_fill_the_memory_is_refused(sessions: Sessions) -> None:
    """18 MB of empty lists would need half a GB."""
    session = sessions.open()
    assert session.stdin and session.stdout
    session.stdin.write(hosts.frame_of(request(1, BEFORE) | {"extra": [[]] * 6_000_000}))
    session.stdin.flush()
    answer = json.loads(session.stdout.readline())
    assert answer["error"] == {"code": "bad_request", "reason": "request_too_large", "params": {"most": 256}}
    assert session.wait(10) == 1


@pytest.mark.slow
def test_n7_ten_thousand_people_with_two_keys_fit_into_a_request(sessions: Sessions) -> None:
    users = {f"person{number}": [rsa(number), rsa(-number - 1)] for number in range(10_000)}
    session = sessions.open()
    assert session.stdin and session.stdout
    session.stdin.write(hosts.frame_of(request(1, users)))
    session.stdin.flush()
    assert b'"ok":true' in session.stdout.readline()
    status = Path(f"/proc/{session.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < 160 << 10  # type: ignore[index]


def rsa(number: int) -> dict[str, str]:
    """The entry of an RSA key of 4096 bits, as it would be made up, with a usual comment."""
    modulus = (1 << 4095 | (number % 2**32) << 1 | 1).to_bytes(512, "big")
    fields = (b"ssh-rsa", b"\1\0\1", b"\0" + modulus)
    blob = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return {
        "type": "ssh-rsa",
        "blob": base64.b64encode(blob).decode(),
        "comment": f"person{number}@workstation.mylab.com",
    }
