"""Child processes with a clean environment, a deadline and bounded output.

`subprocess` and `selectors` are imported by the first one: a push of keys needs none, and starts faster without.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, NamedTuple, TypeAlias

from labhost.errors import LabhostError
from labhost.system.names import printable

if TYPE_CHECKING:
    import selectors
    import subprocess

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_OUTPUT = 1 << 20
_PR_SET_PDEATHSIG = 1
_PIPE, DEVNULL = -1, -3  # as in subprocess
Process: TypeAlias = "subprocess.Popen[bytes]"
Stdin: TypeAlias = int | IO[bytes] | None
_libc = ctypes.CDLL(None, use_errno=True)


class Account(NamedTuple):
    """The host account that a process runs as, with no group but its own."""

    name: str
    uid: int
    gid: int
    home: str = "/"


class Result(NamedTuple):
    command: tuple[str, ...]
    code: int
    out: bytes
    err: bytes
    timed_out: bool = False
    truncated: bool = False

    @property
    def ok(self) -> bool:
        return self.code == 0 and not self.timed_out

    @property
    def error_line(self) -> str:
        """The last line that the command wrote to stderr, else its exit status, in one line."""
        if self.timed_out:
            return f"{self._name} took too long"
        lines = [line for line in self.err.decode("utf-8", "replace").splitlines() if line.strip()]
        return printable(lines[-1].strip()) if lines else f"{self._name} ended with status {self.code}"

    @property
    def _name(self) -> str:
        return os.path.basename(self.command[0])

    def check(self, problem: str, *, reason: str = "command_failed") -> "Result":
        """This result; LabhostError that begins with `problem` if the command failed."""
        if not self.ok:
            text = f"{problem}: {self.error_line}"
            raise LabhostError(text, reason=reason, command=self._name, detail=self.error_line)
        return self


def environment(account: Account | None, extra: dict[str, str] | None = None) -> dict[str, str]:
    base = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": account.home if account else "/root"}
    if account:
        base |= {"USER": account.name, "LOGNAME": account.name}
    return base | (extra or {})


def spawn(
    command: Sequence[str],
    *,
    account: Account | None = None,
    stdin: Stdin = DEVNULL,
    output: int = _PIPE,
    env: dict[str, str] | None = None,
    prepare: Callable[[], object] | None = None,
) -> Process:
    """Starts a process in a session of its own, so without a terminal. Unless it calls `prepare`, it dies with this."""
    import subprocess

    identity = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    return subprocess.Popen(  # type: ignore[call-overload]
        list(command),
        stdin=stdin,
        stdout=output,
        stderr=output,
        cwd="/",
        env=environment(account, env),
        start_new_session=True,
        preexec_fn=prepare or die_with_parent,
        umask=0o022,
        **identity,
    )


def die_with_parent() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def run(
    command: Sequence[str],
    *,
    timeout: float,
    account: Account | None = None,
    stdin: bytes | Stdin = None,
    env: dict[str, str] | None = None,
    max_output: int = MAX_OUTPUT,
) -> Result:
    """Runs a command; after `timeout` seconds its process group is killed. LabhostError if it cannot be started."""
    feed = _memory_file(stdin) if isinstance(stdin, bytes) else stdin
    try:
        process = spawn(command, account=account, stdin=DEVNULL if feed is None else feed, env=env)
    except OSError as error:
        text = f"{command[0]} cannot be run: {error.strerror}"
        raise LabhostError(text, reason="command_not_run", command=os.path.basename(command[0])) from error
    finally:
        if isinstance(stdin, bytes) and isinstance(feed, int):
            os.close(feed)
    return finish(process, command, timeout=timeout, max_output=max_output)


def _memory_file(data: bytes) -> int:
    fd = os.memfd_create("stdin")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def finish(process: Process, command: Sequence[str], *, timeout: float, max_output: int = MAX_OUTPUT) -> Result:
    """Reads both outputs until the process ends, even if a descendant keeps the pipes open."""
    import selectors

    deadline = time.monotonic() + timeout
    output = {"out": bytearray(), "err": bytearray()}
    truncated = ended = False
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
                    truncated |= _drain(selector, key, output[key.data], max_output)
    os.close(ending)
    if not ended:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return Result(tuple(command), code, bytes(output["out"]), bytes(output["err"]), not ended, truncated)


def _drain(selector: "selectors.BaseSelector", key: "selectors.SelectorKey", output: bytearray, limit: int) -> bool:
    """Reads what is available, at most 16 chunks; True if the output was truncated."""
    truncated = False
    for _ in range(16):
        try:
            piece = os.read(key.fd, 65536)
        except BlockingIOError:
            return truncated
        if not piece:
            selector.unregister(key.fileobj)
            return truncated
        room = limit - len(output)
        output += piece[:room]
        truncated |= len(piece) > room
    return truncated
