"""The framed JSON of the host protocol, version 1: a cut or changed transfer applies nothing."""

import hashlib
import json
import os
import re
import select
import time
from typing import Any

from labhost.errors import BadFrame, BadRequest

VERSION = 1
VERSIONS = (1, 2)  # of a request; set-keys tells since version 2 whose the keys are, by subordinate ids
BODY_MOST = 64 * 1024 * 1024
HEADER_MOST = 128
SECONDS = 60.0  # from the first byte of a frame to its last
_HEADER = re.compile(rb"lab-iam 1 (0|[1-9][0-9]{0,8}) ([0-9a-f]{64})\n")
_LATE = "the request did not arrive in time; send it again"
_NO_HEADER = "the header is not `lab-iam 1 LENGTH SHA256`; send the request again"


class Frames:
    """The frames that arrive at `fd`, one after another. What came early is kept for the next one."""

    def __init__(self, fd: int) -> None:
        self._fd, self._data = fd, bytearray()

    def next(self, *, idle: float, seconds: float = SECONDS) -> dict[str, Any] | None:
        """The object of the next frame; None if the input ends before it, or nothing comes for `idle` seconds.

        BadFrame: what follows cannot be understood either. BadRequest: the next frame may be a good one.
        """
        if not self._data and not (self._ready(time.monotonic() + idle) and self._more(4096)):
            return None
        deadline = time.monotonic() + seconds
        match = _HEADER.fullmatch(self._header(deadline))
        if match is None or int(match[1]) > BODY_MOST:
            raise BadFrame(_NO_HEADER)
        body = self._body(int(match[1]), deadline)
        if hashlib.sha256(body).hexdigest().encode() != match[2]:
            raise BadFrame("the checksum differs; send the request again")
        return parse_object(body)

    def end(self, *, seconds: float = SECONDS) -> None:
        """Nothing follows; else BadFrame."""
        if not self._data and not self._ready(time.monotonic() + seconds):
            raise BadFrame(_LATE)
        if self._data or self._more(1):
            raise BadFrame("there is something behind the request; send it again")

    def _header(self, deadline: float) -> bytes:
        while b"\n" not in self._data:
            if len(self._data) > HEADER_MOST:
                raise BadFrame(_NO_HEADER)
            self._wait(deadline)
            if not self._more(4096):
                raise BadFrame(_NO_HEADER)
        return self._take(self._data.index(b"\n") + 1)

    def _body(self, length: int, deadline: float) -> bytes:
        while len(self._data) < length:
            self._wait(deadline)
            if not self._more(min(1 << 20, length - len(self._data))):
                raise BadFrame(f"{len(self._data)} of {length} bytes arrived; send the request again")
        return self._take(length)

    def _wait(self, deadline: float) -> None:
        if not self._ready(deadline):
            raise BadFrame(_LATE)

    def _ready(self, deadline: float) -> bool:
        return bool(select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0])

    def _more(self, size: int) -> bool:
        """False at the end of the input."""
        piece = os.read(self._fd, size)
        self._data += piece
        return bool(piece)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken


def read_request(fd: int, *, seconds: float = SECONDS) -> dict[str, Any]:
    """The object of the only frame that arrives at `fd` up to its end; BadFrame or BadRequest."""
    frames = Frames(fd)
    request = frames.next(idle=seconds, seconds=seconds)
    if request is None:
        raise BadFrame("there is no request; send it again")
    frames.end(seconds=seconds)
    return request


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object of a known protocol version, no name twice; BadRequest."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the request is not one JSON object in UTF-8") from error
    if not isinstance(value, dict):
        raise BadRequest("the request is not one JSON object in UTF-8")
    version = value.get("version")
    if version not in VERSIONS or isinstance(version, bool):
        raise BadRequest(f"this server speaks version {VERSIONS[-1]} of the protocol; update labhost or the portal")
    return value


def build(value: dict[str, Any]) -> bytes:
    """The frame of an object: what the other side sends."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return f"lab-iam {VERSION} {len(body)} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
