"""SSH to the servers: the only importer of Fabric and Paramiko.

A server is believed only if it shows the pinned host key; nothing but the key exchange happens before that.
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

CHUNK = 256 * 1024
POLL_SECONDS = 0.02
LOOK_SECONDS = 5.0  # between two looks of an idle connection's thread whether it should end
_BROKEN = (OSError, EOFError, paramiko.SSHException)
Slot = contextlib.AbstractContextManager[Any]
_RSA = ("rsa-sha2-512", "rsa-sha2-256")

# Paramiko prints a traceback for each server that is down; here it is one line, said by whoever called.
_LOG_CHANNEL = f"{__name__}.paramiko"
logging.getLogger(_LOG_CHANNEL).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Login:
    user: str
    key_file: Path | None = None
    password: str = field(default="", repr=False)
    hint: str = "check the account, its key or its password"  # said when it is refused


@dataclass(frozen=True)
class Result:
    """`status` is the exit status; `tail` holds the last lines of standard error."""

    status: int
    stdout: bytes
    tail: str


class Host:
    """An open connection, as a context manager; `seconds` bounds it from the name to the last byte.

    `slot` is held during the handshake alone, from the server's greeting to the end of the sign-in.
    """

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
            raise RemoteError(
                "host_key_unknown",
                f"{self.endpoint.name}: no host key is pinned: accept one first.",
                permanent=True,
            )
        self._watchdog.start()
        try:
            with self.faults():
                self._connect()
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
        lines = StderrReader(on_line)
        with self.faults():
            channel = self._connection.transport.open_session(timeout=self._left())
            with contextlib.closing(channel):
                channel.settimeout(self._left())
                channel.exec_command(command)
                threading.Thread(target=self._send, args=(channel, stdin), name="send", daemon=True).start()
                stdout = self._receive(channel, lines, most)
                if channel.exit_status == -1:
                    raise EOFError
                return Result(channel.exit_status, stdout, " / ".join(lines.tail))

    @property
    def is_alive(self) -> bool:
        transport = self._connection.transport
        return transport is not None and transport.is_active()

    def allow(self, seconds: float) -> None:
        """From now on `seconds` bound what is done; nothing ends an idle connection any more."""
        self._watchdog.cancel()
        self._ends = time.monotonic() + seconds

    def start(self, command: str) -> Any:
        """The channel of a command that goes on listening. Raises RemoteError."""
        with self.faults():
            channel = self._connection.transport.open_session(timeout=self._left())
            channel.settimeout(self._left())
            channel.exec_command(command)
            return channel

    def _connect(self) -> None:
        self._socket = dial(self.endpoint, self._left())
        wait_for_banner(self._socket, self._left())
        with self._slot:
            self._shake_hands(self._socket)

    def _shake_hands(self, line: socket.socket) -> None:
        there = self.endpoint
        key_type = there.host_key.split()[0]
        wanted = _RSA if key_type == "ssh-rsa" else (key_type,)
        others = [name for name in (*host_keys.TYPES, *_RSA) if name not in wanted]
        # lazy: neither Fabric's nor OpenSSH's configuration files have a say in this.
        config = fabric.Config(lazy=True, overrides={"load_ssh_configs": False})
        self._connection = fabric.Connection(
            there.address,
            user=self.login.user,
            port=there.port,
            config=config,
            connect_timeout=min(CONNECT_SECONDS, self._left()),
            connect_kwargs={
                "sock": line,
                "allow_agent": False,
                "look_for_keys": False,
                "banner_timeout": CONNECT_SECONDS,
                "auth_timeout": CONNECT_SECONDS,
                "channel_timeout": CONNECT_SECONDS,
                "disabled_algorithms": {"keys": others},
                **_credentials(self.login),
            },
        )
        client = self._connection.client
        client.set_log_channel(_LOG_CHANNEL)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        known = client.get_host_keys()
        known.clear()
        label = there.address if there.port == 22 else f"[{there.address}]:{there.port}"
        known.add(label, key_type, _public_key(there.host_key))
        self._connection.open()
        # Paramiko looks ten times a second, which is felt with many connections. hang_up wakes it anyhow.
        line.settimeout(LOOK_SECONDS)

    def _send(self, channel: Any, stdin: Iterable[bytes]) -> None:
        """In a thread of its own, so that a command may talk before it has read everything."""
        try:
            for piece in stdin:
                channel.settimeout(max(self._left(), 0.1))
                channel.sendall(piece)
            channel.shutdown_write()
        except _BROKEN:  # it ended early, or our own file cannot be read: the cut transfer applies nothing
            with contextlib.suppress(*_BROKEN):
                channel.close()

    def _receive(self, channel: Any, lines: StderrReader, most: int) -> bytes:
        stdout = bytearray()
        while True:
            ended = channel.closed or (channel.eof_received and channel.exit_status_ready())
            idle = True
            if channel.recv_ready():
                stdout += channel.recv(CHUNK)
                idle = False
            if channel.recv_stderr_ready():
                lines.feed(channel.recv_stderr(CHUNK))
                idle = False
            if len(stdout) > most:
                raise RemoteError("bad_answer", f"{self.endpoint.name}: its answer is too long.")
            if self._left() <= 0:
                raise TimeoutError
            if idle and ended:
                lines.end()
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
        """Whatever goes wrong inside becomes one RemoteError."""
        name = self.endpoint.name
        try:
            yield
        except RemoteError:
            raise
        except paramiko.BadHostKeyException as error:
            raise _changed(name, f"{error.key.get_name()} {error.key.get_base64()}") from None
        except paramiko.IncompatiblePeer as error:
            if "host key" in str(error):
                raise _changed(name, _scan_quietly(self.endpoint)) from None
            raise RemoteError("unreachable", f"{name}: no common SSH algorithm ({error}).", permanent=True) from None
        except paramiko.AuthenticationException:
            message = f"{name}: it refuses {self.login.user}'s sign-in: {self.login.hint}."
            raise RemoteError("auth_refused", message) from None
        except _BROKEN as error:
            # "No existing session": Paramiko stops waiting for the key exchange and goes on without one
            is_late = self._late or self._left() <= 0 or "No existing session" in str(error)
            if is_late or isinstance(error, TimeoutError):
                raise RemoteError("timeout", f"{name}: it did not finish in time.") from None
            raise RemoteError("unreachable", f"{name}: the connection broke off ({error_text(error)}).") from None


def ask(host: Host, verb: str, framed: bytes, *, on_line: Callable[[str], None] | None = None) -> protocol.Answer:
    """The judged answer of a host to one verb and its framed request. Raises RemoteError."""
    result = host.run(verb, [framed], on_line=on_line)
    name = host.endpoint.name
    try:
        answer = protocol.parse_answer(result.stdout)
    except protocol.BadAnswer as error:
        said = f" ({result.tail})" if result.tail else ""
        raise RemoteError("bad_answer", f"{name}: {error}{said}.") from None
    if answer.ok != (result.status == 0):
        raise RemoteError("bad_answer", f"{name}: its answer and its exit status {result.status} disagree.")
    return answer


def bounded(command: str, *, seconds: int, sudo: bool) -> str:
    """A command line that ends on the far side after `seconds`, also when nobody is connected any more."""
    line = f"timeout -k 5 {seconds} sh -c {shlex.quote(command)}"
    return f"sudo -n -- {line}" if sudo else line


def scan_host_key(address: str, port: int, *, seconds: float = CONNECT_SECONDS) -> str:
    """The host key, `type blob`, that is shown at this address now; nobody signs in. Raises RemoteError."""
    there = Endpoint(address, address, port, "")
    end = time.monotonic() + seconds
    line = dial(there, seconds)
    transport = None
    try:
        transport = paramiko.Transport(line)
        transport.set_log_channel(_LOG_CHANNEL)
        transport.banner_timeout = seconds
        transport.start_client(timeout=max(end - time.monotonic(), 0.1))
        key = transport.get_remote_server_key()
        return host_keys.canonical(f"{key.get_name()} {key.get_base64()}")
    except (paramiko.SSHException, OSError, EOFError, ValueError) as error:
        raise RemoteError("unreachable", f"{address}: no SSH host key on port {port} ({error_text(error)}).") from None
    finally:
        close_socket(line)
        if transport is not None:
            transport.close()


def _scan_quietly(there: Endpoint) -> str:
    try:
        return scan_host_key(there.address, there.port)
    except RemoteError:
        return ""


def _changed(name: str, offered: str) -> RemoteError:
    shown = host_keys.fingerprint(offered) or "a key of another type"
    message = f"{name}: the host key has changed to {shown}; nothing was sent. Compare it, accept it in the admin."
    return RemoteError("host_key_changed", message, permanent=True, offered=offered)


def _credentials(login: Login) -> dict[str, Any]:
    if login.key_file is None:
        return {"password": login.password}
    try:
        return {"pkey": paramiko.PKey.from_path(login.key_file)}
    except (OSError, ValueError, TypeError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        message = f"The private key {login.key_file} cannot be used: {error_text(error)}."
        raise RemoteError("no_key", message, permanent=True) from None


def _public_key(host_key: str) -> Any:
    key_type, blob = host_key.split()
    return paramiko.hostkeys.HostKeyEntry.from_line(f"pinned {key_type} {blob}").key
