"""The framing of the host protocol: an incomplete, changed or late request is refused completely."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labhost.errors import BadFrame, BadRequest, LabhostError
from labhost.keys import public_keys
from labhost.protocol import frame
from labhost.system import log

from tests.hostscripts.hosts import frame_of
from tests.lab.waiting import ends_within


@contextmanager
def arriving(data: bytes, *, closed: bool = True) -> Iterator[int]:
    reader, writer = os.pipe()

    def send() -> None:
        os.write(writer, data)
        if closed:
            os.close(writer)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield reader
    finally:
        sender.join()
        os.close(reader)
        if not closed:
            os.close(writer)


def read(data: bytes) -> dict[str, Any]:
    with arriving(data) as fd:
        return frame.read_request(fd, seconds=5)


def framed(body: bytes) -> bytes:
    return f"lab-iam 1 {len(body)} {hashlib.sha256(body).hexdigest()}\n".encode() + body


WHOLE = frame_of({"version": 1, "user": "lqchen"})


def test_a_built_frame_can_be_read() -> None:
    assert read(WHOLE) == {"version": 1, "user": "lqchen"}


@pytest.mark.parametrize("cut", range(1, len(WHOLE), 7))
def test_y2_an_interrupted_transfer_applies_nothing(cut: int) -> None:
    with pytest.raises(BadFrame):
        read(WHOLE[:-cut])


@pytest.mark.parametrize("place", range(0, len(WHOLE), 5))
def test_a_changed_byte_is_detected(place: int) -> None:
    changed = bytearray(WHOLE)
    changed[place] ^= 1
    with pytest.raises(BadFrame):
        read(bytes(changed))


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(BadFrame):
        read(WHOLE + b"x")


HEADERS = [
    b"lab-iam 2 2 ",
    b"lab-iam 1 -2 ",
    b"lab-iam 1 02 ",
    b"lab-iam 1 65537 ",
    b"lab-iam 1 2\t",
    b"LAB-IAM 1 2 ",
    b"",
]


@pytest.mark.parametrize("start", HEADERS)
def test_an_invalid_header_is_refused(start: bytes) -> None:
    with pytest.raises(BadFrame):
        read(start + hashlib.sha256(b"{}").hexdigest().encode() + b"\n{}")


def test_an_endless_header_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(BadFrame):
        read(b"lab-iam 1 " + b"9" * 20_000)


def test_y2_a_silent_sender_times_out() -> None:
    with ends_within(30), arriving(WHOLE[:-3], closed=False) as fd, pytest.raises(BadFrame, match="in time"):
        frame.read_request(fd, seconds=0.3)


BODIES = [
    b"",
    b"[]",
    b"{",
    b"\xff",
    b'{"version":1,"version":1}',
    b'{"version":NaN}',
    b"[" * 50_000,
    b'{"version":true}',
    b'{"version":0}',
    b'{"version":2}',
    b'{"version":"1"}',
    b"{}",
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
def test_a_body_other_than_one_object_of_version_1_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read(framed(body))


@pytest.mark.parametrize("version", [0, frame.VERSION + 1, 10**9])
def test_an_unknown_version_is_refused_with_the_supported_ones(version: int) -> None:
    with pytest.raises(BadRequest) as refused:
        read(frame_of({"version": version}))
    assert (refused.value.code, refused.value.reason) == ("bad_request", "version_unsupported")
    assert refused.value.params == {"speaks": frame.VERSION, "oldest": frame.OLDEST}


def test_the_previous_version_is_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "VERSION", 3)
    monkeypatch.setattr(frame, "OLDEST", 2)
    assert [read(frame_of({"version": version}))["version"] for version in (2, 3)] == [2, 3]
    for version in (1, 4):
        with pytest.raises(BadRequest):
            read(frame_of({"version": version}))


def test_required_fields_are_checked_and_others_ignored_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(log, "write", lambda text, **_: warnings.append(text))
    request = {"version": 1, "user": "alice", "purge": False}
    assert frame.require(request, user=str, purge=bool) == ("alice", False) and warnings == []
    assert frame.require(request | {"since": 5}, user=str, purge=bool) == ("alice", False)
    assert warnings == ["request: unknown fields are ignored: since"]


@pytest.mark.parametrize(
    "wrong", [{}, {"user": None}, {"user": 1}, {"user": ["alice"]}, {"purge": 0}, {"purge": "no"}], ids=str
)
def test_a_missing_or_mistyped_required_field_is_refused(wrong: dict[str, Any]) -> None:
    request = {"user": "alice", "purge": False} | wrong if wrong else {"user": "alice"}
    with pytest.raises(BadRequest) as refused:
        frame.require(request, user=str, purge=bool)
    assert refused.value.reason == "field_invalid" and refused.value.params == {"field": next(iter(wrong), "purge")}


def test_the_digest_is_of_canonical_json() -> None:
    users = {"b": [], "a": [{"type": "t", "comment": "é"}]}
    text = '{"a":[{"comment":"\\u00e9","type":"t"}],"b":[]}'
    assert public_keys.digest_of(users) == hashlib.sha256(text.encode()).hexdigest()
    assert public_keys.digest_of(json.loads(json.dumps(users))) == public_keys.digest_of(users)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid frame truncated, changed or extended; or a valid frame of an invalid body; or any bytes."""
    data = bytearray(draw(st.sampled_from([WHOLE, framed(draw(st.binary(max_size=80)))])))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 5))] = draw(st.binary(max_size=5))
    return bytes(data) if draw(st.integers(0, 9)) else draw(st.binary(max_size=200))


@settings(max_examples=1000, deadline=None, database=None)
@given(damaged())
def test_p3_any_bytes_are_at_most_refused(data: bytes) -> None:
    with suppress(LabhostError):
        assert read(data)["version"] == 1
