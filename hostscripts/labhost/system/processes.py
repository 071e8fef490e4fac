"""Child processes: a list of words, a clean environment, a deadline, bounded output.

What starts them is imported with the first: a push of keys, which needs none, begins the sooner.
"""

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, TypeAlias

from labhost.errors import LabhostError
from labhost.system.names import printable

if TYPE_CHECKING:
    import selectors
    import subprocess

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_OUTPUT = 1 << 20
_PR_SET_PDEATHSIG = 1
_DEVNULL = -3  # subprocess.DEVNULL
Process: TypeAlias = "subprocess.Popen[bytes]"
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Account:
    """Whose process it is: always with its own group alone."""

    name: str
    uid: int
    gid: int
    home: str = "/"


@dataclass(frozen=True)
class Result:
    words: tuple[str, ...]
    code: int
    out: bytes
    err: bytes
    timed_out: bool = False
    cut: bool = False

    @property
    def ok(self) -> bool:
        return self.code == 0 and not self.timed_out

    @property
    def error_line(self) -> str:
        """The last line that the command wrote to stderr, or its exit status, in one line."""
        if self.timed_out:
            return f"{os.path.basename(self.words[0])} took too long"
        lines = [line for line in self.err.decode("utf-8", "replace").splitlines() if line.strip()]
        return (
            printable(lines[-1].strip())
            if lines
            else f"{os.path.basename(self.words[0])} ended with status {self.code}"
        )

    def check(self, doing: str) -> "Result":
        if not self.ok:
            raise LabhostError(f"{doing}: {self.error_line}")
        return self


def environment(account: Account | None, extra: dict[str, str] | None = None) -> dict[str, str]:
    base = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": account.home if account else "/root"}
    if account:
        base |= {"USER": account.name, "LOGNAME": account.name}
    return base | (extra or {})


def spawn(
    words: Sequence[str],
    *,
    account: Account | None = None,
    stdin: int | IO[bytes] | None = _DEVNULL,
    env: dict[str, str] | None = None,
) -> Process:
    """Starts a process that dies with this one; its own session, so that it never has a terminal."""
    import subprocess

    identity: dict[str, object] = {}
    if account is not None:
        identity = {"user": account.uid, "group": account.gid, "extra_groups": []}
    return subprocess.Popen(  # type: ignore[call-overload]
        list(words),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=environment(account, env),
        start_new_session=True,
        preexec_fn=die_with_parent,
        umask=0o022,
        **identity,
    )


def die_with_parent() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def run(
    words: Sequence[str],
    *,
    timeout: float,
    account: Account | None = None,
    stdin: bytes | int | IO[bytes] | None = None,
    env: dict[str, str] | None = None,
    most: int = MAX_OUTPUT,
) -> Result:
    """Runs to the end or to the deadline (seconds); then the whole process group is killed."""
    feed = _memory_file(stdin) if isinstance(stdin, bytes) else stdin
    try:
        process = spawn(words, account=account, stdin=_DEVNULL if feed is None else feed, env=env)
    except OSError as error:
        raise LabhostError(f"{words[0]} cannot be run: {error.strerror}") from error
    finally:
        if isinstance(stdin, bytes) and isinstance(feed, int):
            os.close(feed)
    return finish(process, words, timeout=timeout, max_output=most)


def _memory_file(data: bytes) -> int:
    fd = os.memfd_create("stdin")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def finish(process: Process, words: Sequence[str], *, timeout: float, most: int = MAX_OUTPUT) -> Result:
    """Reads both outputs until the process ends. A descendant that keeps the pipes open is not waited for."""
    import selectors

    deadline = time.monotonic() + timeout
    kept = {"out": bytearray(), "err": bytearray()}
    cut = ended = False
    ending = os.pidfd_open(process.pid)
    with selectors.DefaultSelector() as selector:
        selector.register(ending, selectors.EVENT_READ, "")
        for label, stream in (("out", process.stdout), ("err", process.stderr)):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, label)
        while not ended and (left := deadline - time.monotonic()) > 0:
            ready = selector.select(left)
            ended = any(not key.data for key, _ in ready)
            for key in list(selector.get_map().values()) if ended else [key for key, _ in ready]:
                if key.data:
                    cut |= _drain(selector, key, kept[key.data], most)
    os.close(ending)
    if not ended:
        _kill(process)
    code = process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return Result(tuple(words), code, bytes(kept["out"]), bytes(kept["err"]), not ended, cut)


def _drain(selector: "selectors.BaseSelector", key: "selectors.SelectorKey", kept: bytearray, most: int) -> bool:
    """Takes what is there now, at most 16 pieces at a time; True if something had to be thrown away."""
    cut = False
    for _ in range(16):
        try:
            piece = os.read(key.fd, 65536)
        except BlockingIOError:
            return cut
        if not piece:
            selector.unregister(key.fileobj)
            return cut
        room = most - len(kept)
        kept += piece[:room]
        cut |= len(piece) > room
    return cut


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
