"""set-keys as a session: one line for each frame, until the input ends."""

import io
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labhost.errors import BadRequest
from labhost.host.config import Host
from labhost.keys import set_keys
from labhost.protocol import frame, session

from tests.hostscripts import hosts
from tests.hostscripts.conftest import AFTER, BEFORE, changes, register_file, request
from tests.hostscripts.hosts import frame_of
from tests.hostscripts.public_keys import ed25519
from tests.lab.waiting import ends_within


@pytest.fixture(autouse=True)
def _no_alarm_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield
    import signal

    signal.alarm(0)


def serve(host: Host, data: bytes, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and answers of a session that gets these bytes."""
    reader, writer = os.pipe()

    def send() -> None:
        os.write(writer, data)
        os.close(writer)

    sender = threading.Thread(target=send)
    sender.start()
    memory = set_keys.Memory()
    code = session.serve(reader, lambda request: set_keys.set_keys(host, request, memory))
    sender.join()
    os.close(reader)
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def codes(answers: list[dict[str, Any]]) -> list[str]:
    return ["ok" if answer["ok"] else answer["error"]["code"] for answer in answers]


def test_one_frame_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, answers = serve(hosts.make(tmp_path), frame_of(request(1, BEFORE)), capsys)
    assert (code, codes(answers)) == (0, ["ok"])


def test_frames_are_answered_one_after_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pushes = [request(1, BEFORE), changes(2, BEFORE, AFTER), changes(3, BEFORE, AFTER), changes(3, AFTER, BEFORE)]
    code, answers = serve(hosts.make(tmp_path), b"".join(map(frame_of, pushes)), capsys)
    assert (code, codes(answers)) == (0, ["ok", "ok", "other_base", "ok"])
    assert ed25519(2)["blob"] in register_file(tmp_path).read_text()


def test_an_answer_has_the_version_of_its_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, "VERSION", 2)
    pushes = [request(2, BEFORE) | {"version": 2}, request(3, BEFORE), request(1, BEFORE) | {"version": 2}]
    _, answers = serve(hosts.make(tmp_path), b"".join(map(frame_of, pushes)), capsys)
    assert [answer["version"] for answer in answers] == [2, 1, 2] and codes(answers) == ["ok", "ok", "stale_revision"]


def test_an_error_is_a_code_a_reason_and_params(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pushes = [request(2, BEFORE), request(1, BEFORE)]
    _, answers = serve(hosts.make(tmp_path), b"".join(map(frame_of, pushes)), capsys)
    assert answers[1] == {
        "version": 1,
        "ok": False,
        "error": {"code": "stale_revision", "reason": "revision_older", "params": {"revision": 1, "applied": 2}},
    }


def test_fields_that_a_newer_portal_added_are_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push = request(1, BEFORE) | {"reason": "new", "since": {"a": [1]}}
    assert codes(serve(hosts.make(tmp_path), frame_of(push), capsys)[1]) == ["ok"]


def test_the_exit_status_is_of_the_last_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pushes = [request(2, BEFORE), request(1, BEFORE)]
    code, answers = serve(hosts.make(tmp_path), b"".join(map(frame_of, pushes)), capsys)
    assert (code, codes(answers)) == (1, ["ok", "stale_revision"])


def test_a_bad_request_does_not_end_the_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = frame_of({"version": 1}) + frame_of(request(1, BEFORE))
    code, answers = serve(hosts.make(tmp_path), data, capsys)
    assert (code, codes(answers)) == (0, ["bad_request", "ok"])


@pytest.mark.parametrize("rest", [b"x", b"lab-iam 1 5 " + b"0" * 64 + b"\n12345", frame_of(request(2, AFTER))[:-3]])
def test_y2_a_broken_frame_ends_the_session_and_applies_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rest: bytes
) -> None:
    data = frame_of(request(1, BEFORE)) + rest + (frame_of(request(3, AFTER)) if rest[:1] != b"x" else b"")
    code, answers = serve(hosts.make(tmp_path), data, capsys)
    assert (code, codes(answers)) == (1, ["ok", "bad_frame"])
    assert ed25519(2)["blob"] in register_file(tmp_path).read_text()


def test_no_request_at_all_is_a_bad_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(hosts.make(tmp_path), b"", capsys)[0] == 1


def test_an_idle_session_ends_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "IDLE_SECONDS", 0.3)
    reader, writer = os.pipe()
    os.write(writer, frame_of(request(1, BEFORE)))
    host, began = hosts.make(tmp_path), time.monotonic()
    with ends_within(30):
        assert session.serve(reader, lambda request: set_keys.set_keys(host, request)) == 0
    assert time.monotonic() - began >= 0.3
    os.close(writer)
    os.close(reader)


def test_an_unexpected_error_ends_the_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.write(writer, frame_of({"version": 1}))

    def fault(request: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("x")

    assert session.serve(reader, fault) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "failed"
    os.close(writer)
    os.close(reader)


def test_a_closed_output_ends_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    reader, writer = os.pipe()
    os.write(writer, frame_of(request(1, BEFORE)))
    host = hosts.make(tmp_path)
    assert session.serve(reader, lambda request: set_keys.set_keys(host, request)) == 1
    os.close(writer)
    os.close(reader)


@pytest.mark.slow
@pytest.mark.parametrize("count", [100_000, pytest.param(2_000_000, marks=pytest.mark.long)])
def test_p3_a_hundred_thousand_damaged_pushes_have_no_effect(tmp_path: Path, count: int) -> None:
    """The complete path of a request through the host program; no damaged push changes a file."""
    host, memory, dice = hosts.make(tmp_path), set_keys.Memory(), random.Random(3)
    set_keys.set_keys(host, request(5, BEFORE), memory)
    before = contents(tmp_path)
    wholes = [json.dumps(push).encode() for push in (changes(6, BEFORE, AFTER), request(6, AFTER))]
    pieces = [b"null", b"{}", b'"', b"\\ud800", b"1e999", b"-0", b"\xff", b"9" * 99, b"true", b",", b":", b"A" * 9]
    for number in range(count):
        whole = wholes[number % 2]
        body = bytearray(whole)
        start = dice.randrange(len(body))
        piece = dice.choice(pieces) if dice.random() < 0.5 else bytes([dice.randrange(256)])
        body[start : start + dice.choice((0, 1, 1, 4, 30))] = piece
        if bytes(body) in wholes:
            continue
        try:
            value = frame.parse_object(frame.text_of(bytes(body)))
        except BadRequest:
            continue
        if value == json.loads(whole) or _means_the_same(value, whole):
            continue
        try:
            set_keys.set_keys(host, value, memory)
        except set_keys.LabhostError:
            continue
        raise AssertionError(f"accepted: {bytes(body)!r}")
    assert before == contents(tmp_path)


def contents(folder: Path) -> dict[Path, bytes]:
    """All files but SQLite's index of its log, which readers write as well."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm"))
    return {path: path.read_bytes() for path in files}


def _means_the_same(value: dict[str, Any], whole: bytes) -> bool:
    """Damage without any effect (an unused field), or only to a higher revision."""
    right = json.loads(whole)
    named = ["digest", "base", "users", "changes"]
    return all(value.get(name) == right.get(name) for name in named)
