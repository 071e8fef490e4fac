"""The operating system: files, child processes, mounts, logind, names and text. Knows nothing of containers."""

from labhost.system.names import check_name, is_name, printable
from labhost.system.processes import Account, Process, Result, finish, run, spawn
from labhost.system.progress import Progress

__all__ = [
    "Account", "Process", "Progress", "Result", "check_name", "finish", "is_name", "printable", "run", "spawn",
]  # fmt: skip
