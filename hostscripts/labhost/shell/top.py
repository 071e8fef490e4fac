"""`top`: who uses the CPUs, memory and GPUs of this server, by person and place.

A process belongs to a person by its uid: that of their account, or one of their subordinate ids (then it runs in their
container). About GPUs the server's own nvidia-smi is asked.
"""

import os
import pwd
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from labhost.errors import LabhostError
from labhost.gpu.nvidia import NVIDIA_SMI
from labhost.host import SUBUID_COUNT, Host, User, user_state
from labhost.system import Account, formatting, run

SECONDS = 0.5  # between the two samples that make a rate
NVIDIA_SECONDS = 8
PROC = Path("/proc")
SERVER = ("-", "the server")
Owner = tuple[str, str]  # a person, and "container" or "account"


class Process(NamedTuple):
    pid: int
    uid: int
    ticks: int  # of processor time, user and system
    pages: int  # resident


@dataclass
class Share:
    cpu: float = 0.0  # 2.0 are two busy ones
    memory: int = 0  # bytes
    processes: int = 0
    gpu_memory: dict[int, int] = field(default_factory=dict)  # number of the GPU -> bytes


class Gpu(NamedTuple):
    number: int
    uuid: str
    name: str
    busy: int | None  # per cent
    used: int | None  # bytes
    total: int | None


@dataclass
class Usage:
    shares: dict[Owner, Share]
    gpus: list[Gpu]
    note: str = ""  # why there is nothing about GPUs


def measure(host: Host) -> Usage:
    owner = owners(user_state.all_users(host))
    before = {process.pid: process for process in processes()}
    began = time.monotonic()
    time.sleep(SECONDS)
    now = list(processes())
    usage = Usage(shares(before, now, time.monotonic() - began, owner), [])
    try:
        add_gpus(usage, *_nvidia_smi(), {process.pid: owner(process.uid) for process in now})
    except FileNotFoundError:
        usage.note = "GPUs: there is no nvidia-smi on this server"
    except LabhostError as error:
        usage.note = f"warning: {error}"
    return usage


def owners(users: Iterable[User]) -> Callable[[int], Owner]:
    """Returns a function that finds the owner of a process by its uid."""
    known = [user for user in users if user.managed]
    accounts = {user.uid: (user.name, "account") for user in known}

    def owner(uid: int) -> Owner:
        if uid in accounts:
            return accounts[uid]
        mapped = (user for user in known if user.subuid and user.subuid <= uid < user.subuid + SUBUID_COUNT)
        user = next(mapped, None)
        return (user.name, "container") if user else SERVER

    return owner


def processes(proc: Path = PROC) -> Iterable[Process]:
    """All processes, see proc(5); tolerates that some end meanwhile."""
    for name in filter(str.isdigit, os.listdir(proc)):
        try:
            uid = os.stat(proc / name).st_uid
            text = (proc / name / "stat").read_text(errors="replace")
        except OSError:
            continue
        numbers = text.rpartition(")")[2].split()  # the name before it may contain anything
        yield Process(int(name), uid, int(numbers[11]) + int(numbers[12]), int(numbers[21]))


def shares(
    before: Mapping[int, Process], now: Iterable[Process], seconds: float, owner: Callable[[int], Owner]
) -> dict[Owner, Share]:
    second, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    found: dict[Owner, Share] = {}
    for process in now:
        share = found.setdefault(owner(process.uid), Share())
        share.processes += 1
        share.memory += process.pages * page
        if process.pid in before:
            share.cpu += max(0, process.ticks - before[process.pid].ticks) / second / seconds
    return found


def _nvidia_smi() -> tuple[str, str]:
    """What it prints about GPUs and about processes on them; it runs as nobody."""
    if not os.access(NVIDIA_SMI, os.X_OK):
        raise FileNotFoundError(NVIDIA_SMI)
    nobody = pwd.getpwnam("nobody")
    account = Account("nobody", nobody.pw_uid, nobody.pw_gid)
    answers = []
    for query in (
        "--query-gpu=index,uuid,name,utilization.gpu,memory.used,memory.total",
        "--query-compute-apps=gpu_uuid,pid,used_gpu_memory",
    ):
        command = [str(NVIDIA_SMI), query, "--format=csv,noheader,nounits"]
        result = run(command, timeout=NVIDIA_SECONDS, account=account).check("nvidia-smi failed")
        answers.append(result.out.decode("utf-8", "replace"))
    return answers[0], answers[1]


def add_gpus(usage: Usage, gpus: str, applications: str, owner_of: Mapping[int, Owner]) -> None:
    """Adds what is in nvidia-smi's two CSV texts; memory is in MB there, unknown values are `[N/A]`."""
    for row in _rows(gpus, 6):
        busy, used, total = (_number(word) for word in row[3:])
        usage.gpus.append(Gpu(int(row[0]), row[1], row[2], busy, _bytes(used), _bytes(total)))
    numbers = {gpu.uuid: gpu.number for gpu in usage.gpus}
    for uuid, pid, amount in _rows(applications, 3):
        process = _number(pid)
        if uuid in numbers and process is not None:
            memory = usage.shares.setdefault(owner_of.get(process, SERVER), Share()).gpu_memory
            memory[numbers[uuid]] = memory.get(numbers[uuid], 0) + (_bytes(_number(amount)) or 0)


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return [row for row in rows if len(row) == columns and (columns < 6 or row[0].isdigit())]


def _number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() else None


def _bytes(megabytes: int | None) -> int | None:
    return None if megabytes is None else megabytes << 20


def _sorted(usage: Usage) -> list[tuple[Owner, Share]]:
    """The largest share first, the server itself last."""

    def weight(item: tuple[Owner, Share]) -> tuple[bool, float, int]:
        return item[0] == SERVER, -sum(item[1].gpu_memory.values()) - item[1].cpu * (1 << 30), -item[1].memory

    return sorted(usage.shares.items(), key=weight)


def render(usage: Usage) -> list[str]:
    rows = [
        (name, place, f"{share.cpu:.2f}", formatting.size(share.memory), share.processes, _gpu_memory(share.gpu_memory))
        for (name, place), share in _sorted(usage)
    ]
    text = formatting.table(("person", "place", "CPUs", "memory", "processes", "GPU memory"), rows)
    for gpu in usage.gpus:
        busy = "?" if gpu.busy is None else gpu.busy
        used = "?" if gpu.used is None else formatting.size(gpu.used)
        total = "?" if gpu.total is None else formatting.size(gpu.total)
        text.append(f"GPU {gpu.number} ({gpu.name}): {busy}% busy, {used} of {total}")
    return [*text, usage.note] if usage.note else text


def _gpu_memory(memory: Mapping[int, int]) -> str:
    return ", ".join(f"{number}: {formatting.size(amount)}" for number, amount in sorted(memory.items())) or "-"


def as_json(usage: Usage) -> dict[str, Any]:
    """The same for programs; memory in bytes."""
    return {
        "shares": [
            {
                "person": name if (name, place) != SERVER else None,
                "place": place,
                "cpus": round(share.cpu, 3),
                "memory": share.memory,
                "processes": share.processes,
                "gpu_memory": {str(number): amount for number, amount in sorted(share.gpu_memory.items())},
            }
            for (name, place), share in _sorted(usage)
        ],
        "gpus": [gpu._asdict() for gpu in usage.gpus],
        "note": usage.note,
    }
