"""Deletes what the kernel remembers of a container's connections, which would else fill its table for days.

Netfilter's netlink protocol, see linux/netfilter/nfnetlink_conntrack.h; conntrack(8) is not always installed.
"""

import socket
import struct
from collections.abc import Iterator

from labhost.system import log

_NETLINK_NETFILTER = 12
_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2  # subsystem and message
_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE, _FILTER = 1, 2, 18, 25
_TUPLE_IP, _IP_V4_SRC = 1, 1
_NESTED, _TYPE = 0x8000, 0x3FFF
_FILTER_BY_SOURCE = 1
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_GENERIC = struct.pack("=BBH", socket.AF_INET, 0, 0)
_SECONDS = 10.0


def forget(address: str) -> None:
    """Deletes the entries of connections from and to this address; they are bounded anyway, so a failure is logged."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as peer:
            peer.settimeout(_SECONDS)
            for direction in (_TUPLE_ORIG, _TUPLE_REPLY):
                for entry in list(_dump(peer, direction, socket.inet_aton(address))):
                    peer.send(_message(_DELETE, _REQUEST, entry))
    except OSError as error:
        log.write(f"connections of {address} cannot be forgotten: {error}", warning=True)


def _dump(peer: socket.socket, direction: int, address: bytes) -> Iterator[bytes]:
    """The attributes that name each entry with this source in this direction."""
    ours, other = (1, 2) if direction == _TUPLE_ORIG else (2, 1)
    wanted = _attribute(direction | _NESTED, _attribute(_TUPLE_IP | _NESTED, _attribute(_IP_V4_SRC, address)))
    flags = _attribute(ours, struct.pack("=I", _FILTER_BY_SOURCE)) + _attribute(other, struct.pack("=I", 0))
    peer.send(_message(_GET, _REQUEST | _DUMP, wanted + _attribute(_FILTER | _NESTED, flags), direction))
    while True:
        data = peer.recv(1 << 18)
        while len(data) >= _HEADER.size:
            length, kind, _, sequence, _ = _HEADER.unpack_from(data)
            body, data = data[_HEADER.size : length], data[_padded(length) :]
            if sequence != direction:
                continue  # about an entry that ended before it was deleted
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise OSError(-struct.unpack_from("=i", body)[0], "connection tracking does not answer")
            yield b"".join(_names(body[len(_GENERIC) :]))


def _names(data: bytes) -> Iterator[bytes]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if kind & _TYPE in (_TUPLE_ORIG, _ZONE):
            yield data[: _padded(length)]
        data = data[max(_padded(length), 4) :]


def _message(kind: int, flags: int, attributes: bytes, sequence: int = 0) -> bytes:
    body = _GENERIC + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(_padded(len(value)) - len(value))


def _padded(length: int) -> int:
    return (length + 3) & ~3
