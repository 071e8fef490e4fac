"""Programs that the lab leaves running, identified by process id and start time, so that only they are ended."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.lab.shell import CommandFailed


class Daemon:
    """One program with its children, in its own session. Its process id and start time are in the file `record`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.record = folder / f"{name}.pid"
        self.log = folder / f"{name}.log"

    def start(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, pass_fds: Sequence[int] = ()) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=cwd,
                start_new_session=True, pass_fds=pass_fds,
            )  # fmt: skip
        self.record.write_text(f"{process.pid} {_started(process.pid)}")

    @property
    def pid(self) -> int | None:
        """Its process id, if that is still the program that was started."""
        try:
            pid, started = self.record.read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if _started(int(pid)) == started else None

    def stop(self, patience: float = 5) -> None:
        """End the program and all that it started; signal its main process first."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            if not _ended(pid, patience):
                _signal_session(pid, signal.SIGKILL)
                _ended(pid, patience)
        self.record.unlink(missing_ok=True)

    def kill(self) -> None:
        """End it at once, as in a power cut."""
        if self.pid is not None:
            _signal_session(self.pid, signal.SIGKILL)
            _reap(self.pid or 0)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; empty when there is no such process. proc(5)"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _started(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def session_members(session: int) -> list[int]:
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields and fields[0] != "Z" and int(fields[3]) == session:
            members.append(int(entry.name))
    return members


def _ended(session: int, patience: float) -> bool:
    """Whether nothing of the session is left within `patience` seconds."""
    end = time.monotonic() + patience
    while session_members(session):
        _reap(session)
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _signal_session(session: int, number: signal.Signals) -> None:
    for pid in session_members(session):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def wait_for_port(address: str, port: int, log: Path, timeout: float = 20) -> None:
    """Wait until something listens there. Raises CommandFailed with the end of `log` if nothing does."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            socket.create_connection((address, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    tail = log.read_text(errors="replace")[-3000:] if log.exists() else "no log"
    raise CommandFailed(["listen", f"{address}:{port}"], "nothing", tail)
