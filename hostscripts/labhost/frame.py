"""The framed JSON of the host protocol, version 1: a cut or changed transfer applies nothing."""

import hashlib
import json
import os
import re
import select
import time
from typing import Any

from .errors import BadFrame, BadRequest

VERSION = 1
BODY_MOST = 64 * 1024 * 1024
HEADER_MOST = 128
_HEADER = re.compile(rb"lab-iam 1 (0|[1-9][0-9]{0,8}) ([0-9a-f]{64})\n")


def read_request(fd: int, *, seconds: float = 60.0) -> dict[str, Any]:
    """The object of one frame read from `fd` up to its end; BadFrame or BadRequest."""
    deadline = time.monotonic() + seconds
    header, body = _header(fd, deadline)
    match = _HEADER.fullmatch(header)
    if match is None or int(match[1]) > BODY_MOST:
        raise BadFrame("the header is not `lab-iam 1 LENGTH SHA256`; send the request again")
    length = int(match[1])
    while len(body) <= length:
        piece = _read(fd, min(1 << 20, length + 1 - len(body)), deadline)
        if not piece:
            break
        body += piece
    if len(body) != length:
        raise BadFrame(f"{min(len(body), length + 1)} of {length} bytes arrived; send the request again")
    if hashlib.sha256(body).hexdigest().encode() != match[2]:
        raise BadFrame("the checksum differs; send the request again")
    return parse_object(bytes(body))


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object of protocol version 1, no name twice; BadRequest."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the request is not one JSON object in UTF-8") from error
    if not isinstance(value, dict):
        raise BadRequest("the request is not one JSON object in UTF-8")
    version = value.get("version")
    if version != VERSION or isinstance(version, bool):
        raise BadRequest(f"this server speaks version {VERSION} of the protocol; update labhost or the portal")
    return value


def build(value: dict[str, Any]) -> bytes:
    """The frame of an object: what the other side sends."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return f"lab-iam {VERSION} {len(body)} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def digest_of(users: object) -> str:
    """SHA-256 over the canonical JSON of a users map, as both sides compute it."""
    text = json.dumps(users, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _header(fd: int, deadline: float) -> tuple[bytes, bytearray]:
    data = bytearray()
    while b"\n" not in data:
        piece = _read(fd, 4096, deadline) if len(data) <= HEADER_MOST else b""
        if not piece:
            raise BadFrame("the header is not `lab-iam 1 LENGTH SHA256`; send the request again")
        data += piece
    end = data.index(b"\n") + 1
    return bytes(data[:end]), data[end:]


def _read(fd: int, size: int, deadline: float) -> bytes:
    ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
    if not ready:
        raise BadFrame("the request did not arrive in time; send it again")
    return os.read(fd, size)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
