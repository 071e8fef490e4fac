"""A TCP connection to a server within a bounded time, and the one error of everything that goes over it."""

import contextlib
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from servers import messages, protocol
from servers.protocol import Message

CONNECT_SECONDS = 5.0  # each of: name, TCP, greeting, key exchange, sign-in
LOST_SECONDS = 15  # without anything from the other side


class RemoteError(Exception):
    """The server could not be asked. str() is the text for staff, without the server's name.

    `code` is the kind, on which programs decide (by default the reason): unreachable, timeout, host_key_changed,
    host_key_unknown, auth_refused, bad_answer, no_key, busy, refused. `permanent`: waiting does not help.
    `offered` is the host key that was shown instead of the pinned one, as `type blob`.
    """

    def __init__(
        self, reason: str | Message, *, code: str = "", permanent: bool = False, offered: str = "", **params: str | int
    ) -> None:
        self.message = reason if isinstance(reason, Message) else Message(reason, params)
        super().__init__(messages.render(self.message))
        self.code, self.permanent, self.offered = code or self.message.reason, permanent, offered


@dataclass(frozen=True)
class Endpoint:
    """Where a server is, and the `type blob` that it must show; `name` is for logs and messages."""

    name: str
    address: str
    port: int
    host_key: str


def dial(there: Endpoint, seconds: float) -> socket.socket:
    """A connected socket, within CONNECT_SECONDS for the name and as much for all its addresses together."""
    seconds = max(min(seconds, CONNECT_SECONDS), 0.1)
    end = time.monotonic() + seconds
    fault = OSError()
    for family, kind, number, _, address in _resolve(there, seconds):
        sock = socket.socket(family, kind, number)
        sock.settimeout(max(end - time.monotonic(), 0.1))
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            fault = error
            continue
        _enable_keepalive(sock)
        return sock
    address, port = there.address, there.port
    if isinstance(fault, TimeoutError):
        raise RemoteError("no_answer", code="timeout", address=address, port=port)
    raise RemoteError("connection_failed", code="unreachable", address=address, port=port, detail=error_text(fault))


def _enable_keepalive(sock: socket.socket) -> None:
    """Have the kernel end a connection whose other side has vanished, idle or in mid-transfer."""
    tcp = socket.IPPROTO_TCP
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(tcp, socket.TCP_KEEPIDLE, LOST_SECONDS)
    sock.setsockopt(tcp, socket.TCP_KEEPINTVL, LOST_SECONDS // 3)
    sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, LOST_SECONDS * 1000)


def wait_for_banner(sock: socket.socket, seconds: float) -> None:
    """Wait until the server has sent something; TimeoutError."""
    seconds = max(min(seconds, CONNECT_SECONDS), 0.1)
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    if not poller.poll(seconds * 1000):
        raise TimeoutError


def _resolve(there: Endpoint, seconds: float) -> list[Any]:
    """getaddrinfo has no timeout: it is left behind in a thread when the resolver does not answer."""
    found: list[Any] = []

    def look_up() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found.extend(socket.getaddrinfo(there.address, there.port, type=socket.SOCK_STREAM))

    thread = threading.Thread(target=look_up, name="resolve", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise RemoteError("unknown_address", code="unreachable", address=there.address)
    return found


def close_socket(sock: socket.socket | None) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


def error_text(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return protocol.clean(text or type(error).__name__, 120)
