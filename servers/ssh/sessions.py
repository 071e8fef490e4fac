"""Sessions of set-keys that stay open between pushes: a change then costs neither handshake nor new process.

Each process has a pool of its own. A session is lent to one push at a time; it is closed when it was idle for long,
when the server's address or pinned key is another one now, and after any fault.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from servers import protocol
from servers.ssh.dial import Endpoint, RemoteError
from servers.ssh.host import CHUNK, Host, Login
from servers.ssh.stderr import StderrReader

IDLE_SECONDS = 300.0
HANDSHAKES = 10  # at once; they are work for this machine, and a burst of them is dropped by sshd
SLOT_SECONDS = 30.0
ANSWER_SECONDS = 45.0
LOOK_SECONDS = 5.0  # between two looks for idle sessions

_Key = tuple[Endpoint, Login]
_parsing = threading.Lock()  # one answer at a time: many of them, taken apart at once, would fill the memory


class Session:
    """One open set-keys on one server."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._channel: Any = host.start(protocol.SET_KEYS)
        self._said = StderrReader(None)
        self.since = time.monotonic()  # its last use

    @property
    def is_alive(self) -> bool:
        """Nothing has ended, and nothing was said unasked."""
        return self._host.is_alive and not self._channel.eof_received and not self._channel.recv_ready()

    def ask(self, framed: bytes, seconds: float) -> protocol.Answer:
        """The judged answer to one request. Raises RemoteError; the session is of no use after that."""
        self._host.allow(seconds)
        with self._host.faults():
            self._channel.settimeout(seconds)
            for start in range(0, len(framed), CHUNK):  # Paramiko copies what is left to be sent, again and again
                self._channel.sendall(framed[start : start + CHUNK])
            line = self._line(time.monotonic() + seconds)
        try:
            with _parsing:
                answer = protocol.parse_answer(line)
        except protocol.BadAnswer as error:
            self._hear()
            said = f" ({' / '.join(self._said.tail)})" if self._said.tail else ""
            raise RemoteError("bad_answer", f"{self._host.endpoint.name}: {error}{said}.") from None
        self.since = time.monotonic()
        return answer

    def close(self) -> None:
        self._host.close()

    def _line(self, end: float) -> bytes:
        """Up to the line break; what there is if the command ends before it."""
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
                raise RemoteError("bad_answer", f"{self._host.endpoint.name}: its answer is too long.")
        return bytes(data)

    def _hear(self) -> None:
        self._channel.settimeout(1.0)  # sudo says why it refuses, and ends
        with contextlib.suppress(OSError):
            while piece := self._channel.recv_stderr(CHUNK):
                self._said.feed(piece)
        self._said.end()


class PooledSession:
    """A session as one push sees it: opened when it is first needed, and once more if an old one proves dead."""

    def __init__(self, pool: "Sessions", key: _Key, seconds: float) -> None:
        self._pool, self._key, self._ends = pool, key, time.monotonic() + seconds
        self._session = pool.take(key)
        self._is_old = self._session is not None

    def connect(self) -> None:
        """Open a session unless the pool had one. Raises RemoteError; nothing was sent then."""
        if self._session is None:
            self._session = self._pool.open(self._key, self._left())

    def ask(self, framed: bytes) -> protocol.Answer:
        """Raises RemoteError."""
        try:
            return self._ask(framed)
        except RemoteError as error:
            self._drop()
            if not self._is_old or error.code == "timeout":
                raise
        self._is_old = False
        try:
            return self._ask(framed)
        except RemoteError:
            self._drop()
            raise

    def give_back(self) -> None:
        if self._session is not None:
            self._pool.keep(self._key, self._session)

    def _ask(self, framed: bytes) -> protocol.Answer:
        self.connect()
        assert self._session is not None  # noqa: S101 - connect() opened it
        return self._session.ask(framed, min(self._left(), ANSWER_SECONDS))

    def _left(self) -> float:
        return max(self._ends - time.monotonic(), 0.1)

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


class Sessions:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[_Key, Session]] = {}  # by the server's name
        self._slots = threading.BoundedSemaphore(HANDSHAKES)
        self._is_watched = False

    def __len__(self) -> int:
        return len(self._kept)

    @contextlib.contextmanager
    def line(self, there: Endpoint, login: Login, *, seconds: float) -> Iterator[PooledSession]:
        """Questions to one server, all of them within `seconds`."""
        line = PooledSession(self, (there, login), seconds)
        try:
            yield line
        finally:
            line.give_back()

    def take(self, key: _Key) -> Session | None:
        """The kept session to exactly this server, ours alone until it is given back."""
        with self._lock:
            known, session = self._kept.pop(key[0].name, (None, None))
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

    def keep(self, key: _Key, session: Session) -> None:
        with self._lock:
            _, other = self._kept.pop(key[0].name, (None, None))
            self._kept[key[0].name] = (key, session)
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(target=self._watch, name="sessions", daemon=True).start()
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
        """Close some of the kept ones; False if there are none left."""
        with self._lock:
            ended = [name for name, (_, session) in self._kept.items() if condition(session)]
            closing = [self._kept.pop(name)[1] for name in ended]
            is_watched = self._is_watched = bool(self._kept)
        for session in closing:
            session.close()
        return is_watched

    def _watch(self) -> None:
        def is_over(session: Session) -> bool:
            return not session.is_alive or time.monotonic() - session.since > IDLE_SECONDS

        while True:
            time.sleep(LOOK_SECONDS)
            if not self._close_if(is_over):
                return


_pools: dict[int, Sessions] = {}


def pool() -> Sessions:
    """This process's own: a child must not speak on its parent's connections, nor close them."""
    return _pools.setdefault(os.getpid(), Sessions())
