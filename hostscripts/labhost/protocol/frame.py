"""The framed JSON of the host protocol: a cut or changed transfer applies nothing."""

import hashlib
import json
import os
import re
import select
import time
from collections.abc import Mapping
from typing import Any

from labhost.errors import BadFrame, BadRequest
from labhost.system import log

VERSION = 1  # of requests and answers
OLDEST = max(1, VERSION - 1)  # the version before is still understood
BODY_MOST = 24 * 1024 * 1024  # 10,000 people with two RSA keys of 4096 bits each need 16 MB
SMALL_MOST = 64 * 1024  # of every verb but set-keys
HEADER_MOST = 128
SECONDS = 60.0  # from the first byte of a frame to its last
_HEADER = re.compile(rb"lab-iam 1 (0|[1-9][0-9]{0,8}) ([0-9a-f]{64})\n")


class Frames:
    """The frames that arrive at `fd`, one after another. Nothing is waited for once `stop` can be read."""

    def __init__(self, fd: int, stop: int | None = None, *, most: int = BODY_MOST) -> None:
        self._fd, self._most = fd, most
        self._stop = [] if stop is None else [stop]
        self._data = bytearray()  # read, but not returned yet

    def next(self, *, idle: float, seconds: float = SECONDS) -> dict[str, Any] | None:
        """The object of the next frame; None if the input ends before it, or nothing comes for `idle` seconds.

        BadFrame: the rest of the input cannot be read. BadRequest: the next frame can.
        """
        if not self._data and not self._ready(time.monotonic() + idle):
            return None
        deadline = time.monotonic() + seconds
        if not self._data and not self._more(4096, deadline):
            return None
        match = _HEADER.fullmatch(self._header(deadline))
        if match is None or int(match[1]) > self._most:
            raise _no_header()
        return parse_object(self._body(int(match[1]), match[2], deadline))

    def end(self, *, seconds: float = SECONDS) -> None:
        """Wait for the end of the input. BadFrame if anything follows."""
        if self._data or self._more(1, time.monotonic() + seconds):
            raise BadFrame("there are bytes after the request; send it again", reason="frame_trailing_bytes")

    def _header(self, deadline: float) -> bytes:
        while b"\n" not in self._data:
            if len(self._data) > HEADER_MOST:
                raise _no_header()
            if not self._more(4096, deadline):
                raise _no_header()
        return self._take(self._data.index(b"\n") + 1)

    def _body(self, length: int, checksum: bytes, deadline: float) -> str:
        while len(self._data) < length:
            if not self._more(min(1 << 20, length - len(self._data)), deadline):
                arrived = len(self._data)
                text = f"{arrived} of {length} bytes arrived; send the request again"
                raise BadFrame(text, reason="frame_cut", arrived=arrived, length=length)
        body = self._take(length)
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            raise BadFrame("the checksum differs; send the request again", reason="frame_checksum")
        return text_of(body)

    def _ready(self, deadline: float) -> bool:
        return select.select([self._fd, *self._stop], [], [], max(0.0, deadline - time.monotonic()))[0] == [self._fd]

    def _more(self, size: int, deadline: float) -> bool:
        """Read on; False at the end of the input."""
        if not self._ready(deadline):
            raise BadFrame("the request did not arrive in time; send it again", reason="frame_late")
        piece = os.read(self._fd, size)
        self._data += piece
        return bool(piece)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken


def read_request(fd: int, *, seconds: float = SECONDS) -> dict[str, Any]:
    """The object of the only frame that arrives at `fd` up to its end; BadFrame or BadRequest."""
    frames = Frames(fd, most=SMALL_MOST)
    request = frames.next(idle=seconds, seconds=seconds)
    if request is None:
        raise no_request()
    frames.end(seconds=seconds)
    return request


def text_of(body: bytes) -> str:
    """Decoded apart from the parsing, so that the memory does not hold both; BadRequest."""
    try:
        return body.decode("utf-8")
    except ValueError as error:
        raise _no_object() from error


def parse_object(body: str) -> dict[str, Any]:
    """A JSON object of a version that is spoken here, without duplicate names; BadRequest."""
    try:
        value = json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _no_object() from error
    if not isinstance(value, dict):
        raise _no_object()
    if not OLDEST <= require(value, version=int)[0] <= VERSION:
        text = f"this server speaks the versions {OLDEST} to {VERSION} of the protocol; update labhost or the portal"
        raise BadRequest(text, reason="version_unsupported", speaks=VERSION, oldest=OLDEST)
    return value


def require(request: Mapping[str, Any], **fields: type) -> tuple[Any, ...]:
    """The values of these fields, each of exactly its type; BadRequest. Others are ignored, with a warning."""
    log.ignored("request", request.keys() - fields.keys() - {"version"})
    for name, kind in fields.items():
        if type(request.get(name)) is not kind:  # a bool is no int here
            text = f"the field {name!r} of the request is not of type {kind.__name__}"
            raise BadRequest(text, reason="field_invalid", field=name)
    return tuple(request[name] for name in fields)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice")
    return value


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def no_request() -> BadFrame:
    return BadFrame("there is no request; send it again", reason="frame_missing")


def _no_header() -> BadFrame:
    return BadFrame("the header is not `lab-iam 1 LENGTH SHA256`; send the request again", reason="frame_header")


def _no_object() -> BadRequest:
    return BadRequest("the request is not one JSON object in UTF-8", reason="request_not_json")
