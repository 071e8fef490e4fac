"""All processes: who they belong to, and ending some of them."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from labhost.errors import LabhostError

PAUSE = 0.03  # seconds between looking again


class Process(NamedTuple):
    pid: int
    parent: int
    uid: int  # the real one; /proc's own owner is root where a process has changed its uid
    name: str
    cgroups: tuple[str, ...]  # its paths, one for each hierarchy


def list_processes() -> list[Process]:
    """Those that have not ended."""
    return list(_processes())


def end(chosen: Callable[[list[Process]], list[Process]], *, seconds: float, owner: str) -> None:
    """Kill what `chosen` picks until it picks nothing; LabhostError if that takes longer."""
    deadline = time.monotonic() + seconds
    while found := chosen(list_processes()):
        if time.monotonic() >= deadline:
            pids = ", ".join(str(process.pid) for process in found[:5])
            text = f"processes of {owner} do not end ({pids})"
            raise LabhostError(text, reason="processes_left", name=owner, pids=pids)
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(PAUSE)


def _processes() -> Iterator[Process]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                process = _read(int(name))
                if process is not None:
                    yield process


def _read(pid: int) -> Process | None:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as stream:
        values = dict(line.split(":", 1) for line in stream if ":" in line)
    if values["State"].split()[0] in ("Z", "X"):
        return None
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as stream:
        cgroups = tuple(line.rstrip("\n").split(":", 2)[2] for line in stream)
    return Process(pid, int(values["PPid"]), int(values["Uid"].split()[0]), values["Name"].strip(), cgroups)
