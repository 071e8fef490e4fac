"""set-keys sessions that stay open between pushes: a change then costs neither a handshake nor a new process.

Each process has its own pool. A session serves one push at a time. It is closed after a long idle time, when the
server's address or pinned key has changed, and after any error.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from servers import protocol
from servers.ssh.dial import Endpoint, RemoteError
from servers.ssh.host import CHUNK, Host, Login, bad_answer
from servers.ssh.stderr import StderrReader

IDLE_SECONDS = 300.0
HANDSHAKES = 10  # at once; they load this machine, and sshd drops connections in a burst
SLOT_SECONDS = 30.0
ANSWER_SECONDS = 45.0
SWEEP_SECONDS = 5.0  # between two searches for idle sessions

_Key = tuple[Endpoint, Login]
_parsing = threading.Lock()  # one answer at a time: parsing many at once would fill the memory


class Session:
    """One open set-keys on one server."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._channel: Any = host.start(protocol.SET_KEYS)
        self.last_used = time.monotonic()

    @property
    def is_alive(self) -> bool:
        """Nothing has ended, and nothing was sent without a request."""
        return self._host.is_alive and not self._channel.eof_received and not self._channel.recv_ready()

    def ask(self, framed: bytes, seconds: float) -> protocol.Answer:
        """The validated answer to one request. Raises RemoteError; the session cannot be used after that."""
        self._host.allow(seconds)
        with self._host.faults():
            self._channel.settimeout(seconds)
            for start in range(0, len(framed), CHUNK):  # Paramiko copies the rest of its argument at each write
                self._channel.sendall(framed[start : start + CHUNK])
            data = self._read_line(time.monotonic() + seconds)
        try:
            with _parsing:
                answer = protocol.parse_answer(data)
        except protocol.BadAnswer as error:
            raise bad_answer(error, self._read_stderr()) from None
        self.last_used = time.monotonic()
        return answer

    def close(self) -> None:
        self._host.close()

    def _read_line(self, end: float) -> bytes:
        """Up to the line break, or less if the command ends before it."""
        data = bytearray()
        while not data.endswith(b"\n"):
            self._channel.settimeout(max(end - time.monotonic(), 0.01))
            piece = self._channel.recv(CHUNK)
            if not piece:
                if not self._host.is_alive:
                    raise EOFError
                break
            data += piece
            if len(data) > protocol.MAX_ANSWER:
                raise RemoteError("answer_too_long", code="bad_answer")
        return bytes(data)

    def _read_stderr(self) -> str:
        stderr = StderrReader()
        self._channel.settimeout(1.0)  # sudo prints why it refuses, and ends
        with contextlib.suppress(OSError):
            while piece := self._channel.recv_stderr(CHUNK):
                stderr.feed(piece)
        stderr.end()
        return stderr.tail


class PooledSession:
    """The session of one push: opened on first use, and once more if one from the pool has died."""

    def __init__(self, pool: "Sessions", key: _Key, seconds: float) -> None:
        self._pool, self._key, self._ends = pool, key, time.monotonic() + seconds
        self._session = pool.take(key)
        self._is_reused = self._session is not None

    def connect(self) -> None:
        """Open a session unless the pool had one. Raises RemoteError; nothing was sent then."""
        if self._session is None:
            self._session = self._pool.open(self._key, self._left())

    def ask(self, framed: bytes) -> protocol.Answer:
        """The answer; asks once more if a session from the pool has died. Raises RemoteError."""
        while True:
            self.connect()
            assert self._session is not None  # noqa: S101 - connect() opened it
            try:
                return self._session.ask(framed, min(self._left(), ANSWER_SECONDS))
            except RemoteError as error:
                self._session.close()
                self._session = None
                if not self._is_reused or error.code == "timeout":
                    raise
                self._is_reused = False

    def give_back(self) -> None:
        if self._session is not None:
            self._pool.put_back(self._key, self._session)

    def _left(self) -> float:
        return max(self._ends - time.monotonic(), 0.1)


class Sessions:
    """The idle sessions of one process, one per server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, tuple[_Key, Session]] = {}  # by the server's name
        self._slots = threading.BoundedSemaphore(HANDSHAKES)
        self._is_swept = False

    def __len__(self) -> int:
        return len(self._idle)

    @contextlib.contextmanager
    def session(self, there: Endpoint, login: Login, *, seconds: float) -> Iterator[PooledSession]:
        """A session for requests to one server, all of them within `seconds`."""
        session = PooledSession(self, (there, login), seconds)
        try:
            yield session
        finally:
            session.give_back()

    def take(self, key: _Key) -> Session | None:
        """Take the idle session to exactly this server out of the pool; None if there is none."""
        with self._lock:
            known, session = self._idle.pop(key[0].name, (None, None))
        if session is not None and (known != key or not session.is_alive):
            session.close()
            return None
        return session

    def open(self, key: _Key, seconds: float) -> Session:
        """Raises RemoteError."""
        host = Host(*key, seconds=seconds, slot=self._slot())
        host.__enter__()
        try:
            return Session(host)
        except BaseException:
            host.close()
            raise

    def put_back(self, key: _Key, session: Session) -> None:
        with self._lock:
            _, other = self._idle.pop(key[0].name, (None, None))
            self._idle[key[0].name] = (key, session)
            if not self._is_swept:
                self._is_swept = True
                threading.Thread(target=self._sweep, name="sessions", daemon=True).start()
        if other is not None:
            other.close()

    def close(self) -> None:
        self._close_if(lambda _: True)

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(timeout=SLOT_SECONDS):
            raise TimeoutError
        try:
            yield
        finally:
            self._slots.release()

    def _close_if(self, condition: Any) -> bool:
        """Close idle sessions for which `condition` holds; False if none is left."""
        with self._lock:
            ended = [name for name, (_, session) in self._idle.items() if condition(session)]
            closing = [self._idle.pop(name)[1] for name in ended]
            is_swept = self._is_swept = bool(self._idle)
        for session in closing:
            session.close()
        return is_swept

    def _sweep(self) -> None:
        def is_over(session: Session) -> bool:
            return not session.is_alive or time.monotonic() - session.last_used > IDLE_SECONDS

        while True:
            time.sleep(SWEEP_SECONDS)
            if not self._close_if(is_over):
                return


_pools: dict[int, Sessions] = {}


def pool() -> Sessions:
    """This process's own pool: a child must neither use nor close its parent's connections."""
    return _pools.setdefault(os.getpid(), Sessions())
