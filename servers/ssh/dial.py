"""A TCP connection to a server within a bounded time, and the one error of everything that goes over it."""

import contextlib
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from servers import protocol

CONNECT_SECONDS = 5.0  # each of: name, TCP, greeting, key exchange, sign-in
LOST_SECONDS = 15  # without any sign of the other side


class RemoteError(Exception):
    """The server could not be asked. `message` is one line for staff; `permanent`: waiting does not help.

    Codes: unreachable, timeout, host_key_changed, host_key_unknown, auth_refused, bad_answer, no_key, busy.
    `offered` is the host key that was shown instead of the pinned one, as `type blob`.
    """

    def __init__(self, code: str, message: str, *, permanent: bool = False, offered: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.permanent, self.offered = code, message, permanent, offered


@dataclass(frozen=True)
class Endpoint:
    """Where a server is, and the `type blob` that it must show; `name` is for messages."""

    name: str
    address: str
    port: int
    host_key: str


def dial(there: Endpoint, seconds: float) -> socket.socket:
    """A connected socket, within CONNECT_SECONDS for the name and as much for all its addresses together."""
    seconds = max(min(seconds, CONNECT_SECONDS), 0.1)
    end = time.monotonic() + seconds
    fault: OSError = OSError("it has no address")
    for family, kind, number, _, address in _resolve(there, seconds):
        line = socket.socket(family, kind, number)
        line.settimeout(max(end - time.monotonic(), 0.1))
        try:
            line.connect(address)
        except OSError as error:
            line.close()
            fault = error
            continue
        _watch(line)
        return line
    if isinstance(fault, TimeoutError):
        raise RemoteError("timeout", f"{there.name}: no answer from {there.address} port {there.port}.")
    raise RemoteError("unreachable", f"{there.name}: {there.address} port {there.port}: {error_text(fault)}.")


def _watch(line: socket.socket) -> None:
    """The kernel ends a connection whose other side has gone without a word, idle or in mid-transfer."""
    tcp = socket.IPPROTO_TCP
    line.setsockopt(tcp, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    line.setsockopt(tcp, socket.TCP_KEEPIDLE, LOST_SECONDS)
    line.setsockopt(tcp, socket.TCP_KEEPINTVL, LOST_SECONDS // 3)
    line.setsockopt(tcp, socket.TCP_USER_TIMEOUT, LOST_SECONDS * 1000)


def wait_for_banner(line: socket.socket, seconds: float) -> None:
    """Until the server has said something; TimeoutError."""
    seconds = max(min(seconds, CONNECT_SECONDS), 0.1)
    watch = select.poll()
    watch.register(line, select.POLLIN)
    if not watch.poll(seconds * 1000):
        raise TimeoutError


def _resolve(there: Endpoint, seconds: float) -> list[Any]:
    """getaddrinfo knows no timeout: it is left behind in a thread when the resolver is silent."""
    found: list[Any] = []

    def look_up() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found.extend(socket.getaddrinfo(there.address, there.port, type=socket.SOCK_STREAM))

    thread = threading.Thread(target=look_up, name="resolve", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise RemoteError("unreachable", f"{there.name}: the name {there.address} leads to no address.")
    return found


def close_socket(line: socket.socket | None) -> None:
    if line is not None:
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
        line.close()


def error_text(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return protocol.clean(text or type(error).__name__, 120)
