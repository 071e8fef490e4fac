"""A connection to a server as one account, with Fabric and Paramiko.

A server is trusted only if it shows the pinned host key; nothing but the key exchange happens before that.
Every connection has one deadline for all of it, after which its socket is closed whatever it is doing.
"""

import contextlib
import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import fabric
import paramiko

from servers import protocol
from servers.ssh import host_keys
from servers.ssh.dial import CONNECT_SECONDS, Endpoint, RemoteError, close_socket, dial, error_text, wait_for_banner
from servers.ssh.stderr import StderrReader

# Paramiko logs a traceback for each server that is down; callers report it in one line.
LOG_CHANNEL = f"{__name__}.paramiko"
logging.getLogger(LOG_CHANNEL).setLevel(logging.CRITICAL + 1)
CHUNK = 256 * 1024
POLL_SECONDS = 0.02
IDLE_POLL_SECONDS = 5.0  # how often an idle connection's thread looks whether it should end
_BROKEN = (OSError, EOFError, paramiko.SSHException)
Slot = contextlib.AbstractContextManager[Any]
_OPTIONS: dict[str, Any] = {"allow_agent": False, "look_for_keys": False}
_OPTIONS |= dict.fromkeys(("banner_timeout", "auth_timeout", "channel_timeout"), CONNECT_SECONDS)
_RSA = ("rsa-sha2-512", "rsa-sha2-256")


@dataclass(frozen=True)
class Login:
    """`refused`: the reason of the error when the server refuses it."""

    user: str
    key_file: Path | None = None
    password: str = field(default="", repr=False)
    refused: str = "login_refused"


@dataclass(frozen=True)
class Result:
    """`status` is the exit status; `tail` holds the last lines of standard error."""

    status: int
    stdout: bytes
    tail: str


class Host:
    """An open connection within `seconds`, as a context manager. `slot` is held during the handshake alone."""

    def __init__(self, endpoint: Endpoint, login: Login, *, seconds: float, slot: Slot | None = None) -> None:
        self.endpoint, self.login, self._slot = endpoint, login, slot or contextlib.nullcontext()
        self._ends = time.monotonic() + seconds
        self._late = False
        self._socket: socket.socket | None = None
        self._connection: Any = None
        self._watchdog = threading.Timer(seconds, self._give_up)
        self._watchdog.daemon = True

    def __enter__(self) -> Self:
        if not self.endpoint.host_key:
            raise RemoteError("host_key_unknown", permanent=True)
        self._watchdog.start()
        try:
            with self.faults():
                self._socket = dial(self.endpoint, self._left())
                wait_for_banner(self._socket, self._left())
                with self._slot:
                    self._shake_hands(self._socket)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._watchdog.cancel()
        close_socket(self._socket)
        if self._connection is not None:
            self._connection.close()

    def run(
        self,
        command: str,
        stdin: Iterable[bytes] = (),
        *,
        most: int = protocol.MAX_ANSWER,
        on_line: Callable[[str], None] | None = None,
    ) -> Result:
        """Run one command, send it `stdin`, and read at most `most` bytes of its standard output."""
        stderr = StderrReader(on_line)
        with self.faults():
            channel = self.start(command)
            with contextlib.closing(channel):
                threading.Thread(target=self._send, args=(channel, stdin), name="send", daemon=True).start()
                stdout = self._receive(channel, stderr, most)
                if channel.exit_status == -1:
                    raise EOFError
                return Result(channel.exit_status, stdout, stderr.tail)

    @property
    def is_alive(self) -> bool:
        transport = self._connection.transport
        return transport is not None and transport.is_active()

    def allow(self, seconds: float) -> None:
        """Start a new deadline of `seconds` for what is done next; nothing closes an idle connection any more."""
        self._watchdog.cancel()
        self._ends = time.monotonic() + seconds

    def start(self, command: str) -> Any:
        """Start a command that keeps reading; its channel. Raises RemoteError."""
        with self.faults():
            channel = self._connection.transport.open_session(timeout=self._left())
            channel.settimeout(self._left())
            channel.exec_command(command)
            return channel

    def _shake_hands(self, sock: socket.socket) -> None:
        there = self.endpoint
        key_type = there.host_key.split()[0]
        wanted = _RSA if key_type == "ssh-rsa" else (key_type,)
        others = [name for name in (*host_keys.TYPES, *_RSA) if name not in wanted]
        # lazy: neither Fabric's nor OpenSSH's configuration files are read.
        config = fabric.Config(lazy=True, overrides={"load_ssh_configs": False})
        self._connection = fabric.Connection(
            there.address,
            user=self.login.user,
            port=there.port,
            config=config,
            connect_timeout=min(CONNECT_SECONDS, self._left()),
            connect_kwargs={
                **_OPTIONS,
                "sock": sock,
                "disabled_algorithms": {"keys": others},
                **_credentials(self.login),
            },
        )
        client = self._connection.client
        client.set_log_channel(LOG_CHANNEL)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        known = client.get_host_keys()
        known.clear()
        label = there.address if there.port == 22 else f"[{there.address}]:{there.port}"
        known.add(label, key_type, paramiko.hostkeys.HostKeyEntry.from_line(f"pinned {there.host_key}").key)
        self._connection.open()
        # Paramiko polls ten times a second, which adds up with many connections. close_socket wakes it anyway.
        sock.settimeout(IDLE_POLL_SECONDS)

    def _send(self, channel: Any, stdin: Iterable[bytes]) -> None:
        """Runs in its own thread, so that a command may write before it has read everything."""
        try:
            for piece in stdin:
                channel.settimeout(max(self._left(), 0.1))
                channel.sendall(piece)
            channel.shutdown_write()
        except _BROKEN:  # it ended early, or our own file cannot be read: the cut transfer applies nothing
            with contextlib.suppress(*_BROKEN):
                channel.close()

    def _receive(self, channel: Any, stderr: StderrReader, most: int) -> bytes:
        stdout = bytearray()
        while True:
            ended = channel.closed or (channel.eof_received and channel.exit_status_ready())
            idle = True
            if channel.recv_ready():
                stdout += channel.recv(CHUNK)
                idle = False
            if channel.recv_stderr_ready():
                stderr.feed(channel.recv_stderr(CHUNK))
                idle = False
            if len(stdout) > most:
                raise RemoteError("answer_too_long", code="bad_answer")
            if self._left() <= 0:
                raise TimeoutError
            if idle and ended:
                stderr.end()
                return bytes(stdout)
            if idle:
                time.sleep(POLL_SECONDS)

    def _left(self) -> float:
        return self._ends - time.monotonic()

    def _give_up(self) -> None:
        self._late = True
        close_socket(self._socket)

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """Turn every error of the block into a RemoteError."""
        try:
            yield
        except RemoteError:
            raise
        except paramiko.BadHostKeyException as error:
            raise _host_key_changed(f"{error.key.get_name()} {error.key.get_base64()}") from None
        except paramiko.IncompatiblePeer as error:
            if "host key" in str(error):
                raise _host_key_changed(_scan_quietly(self.endpoint)) from None
            detail = error_text(error)
            raise RemoteError("no_common_algorithm", code="unreachable", permanent=True, detail=detail) from None
        except paramiko.AuthenticationException:
            user, server = self.login.user, self.endpoint.name
            raise RemoteError(self.login.refused, code="auth_refused", user=user, server=server) from None
        except _BROKEN as error:
            # "No existing session": Paramiko stops waiting for the key exchange and goes on without one
            is_late = self._late or self._left() <= 0 or "No existing session" in str(error)
            if is_late or isinstance(error, TimeoutError):
                raise RemoteError("timeout") from None
            raise RemoteError("connection_lost", code="unreachable", detail=error_text(error)) from None


def scan_host_key(address: str, port: int, *, seconds: float = CONNECT_SECONDS) -> str:
    """The host key, `type blob`, that is shown at this address now. Raises RemoteError."""
    end = time.monotonic() + seconds
    sock = dial(Endpoint(address, address, port, ""), seconds)
    transport = None
    try:
        transport = paramiko.Transport(sock)
        transport.set_log_channel(LOG_CHANNEL)
        transport.banner_timeout = seconds
        transport.start_client(timeout=max(end - time.monotonic(), 0.1))
        key = transport.get_remote_server_key()
        return host_keys.canonical(f"{key.get_name()} {key.get_base64()}")
    except (paramiko.SSHException, OSError, EOFError, ValueError) as error:
        detail = error_text(error)
        raise RemoteError("no_host_key", code="unreachable", address=address, port=port, detail=detail) from None
    finally:
        close_socket(sock)
        if transport is not None:
            transport.close()


def ask(host: Host, verb: str, *, on_line: Callable[[str], None] | None = None, **fields: Any) -> protocol.Answer:
    """The validated answer of a host to one verb with these `fields` of its request. Raises RemoteError."""
    result = host.run(verb, [protocol.frame({"version": protocol.VERSION, **fields})], on_line=on_line)
    try:
        answer = protocol.parse_answer(result.stdout)
    except protocol.BadAnswer as error:
        raise bad_answer(error, result.tail) from None
    if answer.ok != (result.status == 0):
        raise RemoteError("status_mismatch", code="bad_answer", status=result.status)
    return answer


def bad_answer(error: protocol.BadAnswer, stderr: str) -> RemoteError:
    return RemoteError("bad_answer", detail=f"{error} ({stderr})" if stderr else str(error))


def bounded(command: str, *, seconds: int, sudo: bool) -> str:
    """A command line that ends on the server after `seconds`, even if the connection is gone."""
    limited = f"timeout -k 5 {seconds} sh -c {shlex.quote(command)}"
    return f"sudo -n -- {limited}" if sudo else limited


def _scan_quietly(there: Endpoint) -> str:
    try:
        return scan_host_key(there.address, there.port)
    except RemoteError:
        return ""


def _host_key_changed(offered: str) -> RemoteError:
    reason, shown = ("host_key_changed", host_keys.fingerprint(offered)) if offered else ("host_key_type_changed", "")
    return RemoteError(reason, code="host_key_changed", permanent=True, offered=offered, fingerprint=shown)


def _credentials(login: Login) -> dict[str, Any]:
    if login.key_file is None:
        return {"password": login.password}
    try:
        return {"pkey": paramiko.PKey.from_path(login.key_file)}
    except (OSError, ValueError, TypeError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        raise RemoteError(
            "private_key_unusable", code="no_key", permanent=True, path=str(login.key_file), detail=error_text(error)
        ) from None
