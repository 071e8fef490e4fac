"""Ends the SSH connections to people's host accounts when they lose a key: one that is open needs no key any more.

All connections from before the key file changed, since sshd does not show which key opened an idle one; people with
another key connect again. Commands that run go on as after any disconnect. sshd names the person in the title of the
process that watches a connection before it reads their keys: so each one that may have used the old file has such
a process.
"""

import os
import re
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from labhost.accounts import linux_accounts
from labhost.errors import LabhostError
from labhost.host import Host, user_state
from labhost.system import log

PROGRAMS = {"sshd", "sshd-session", "sshd-auth"}
GENTLE_SECONDS, SECONDS = 1.0, 3.0
SLACK_SECONDS = 0.1  # clocks of files and of processes tick differently
_TICKS = os.sysconf("SC_CLK_TCK")
_STAT = re.compile(r"[0-9]+ \((?P<program>.*)\) \S (?P<parent>[0-9]+) (?:\S+ ){17}(?P<started>[0-9]+) ", re.DOTALL)
_TITLE = re.compile(r"sshd(?:-session|-auth)?: ([a-z_][a-z0-9_-]{0,31})(?:@\S+)?(?: \[[a-z]+\])?")


class _Account(NamedTuple):
    uid: int
    changed_at: float  # when their keys changed, in seconds since the boot


class _Process(NamedTuple):
    pid: int
    parent: int
    started: float  # seconds since the boot
    uid: int
    title: str


def end(host: Host, people: Collection[str]) -> None:
    """End their connections within seconds; whatever is left is logged. The container and user manager go on."""
    accounts = _accounts(host, people) if people else {}
    began = time.monotonic()
    while accounts and (found := _old(accounts)):
        seconds = time.monotonic() - began
        if seconds > SECONDS:
            pids = ", ".join(str(one.pid) for one in found)
            log.write(f"set-keys: connections of people who lost a key are still open (processes {pids})", warning=True)
            return
        for one in found:
            # What watches a connection ends by itself when the process with the person's uid does, and tidies up.
            gentle = one.uid == 0 and seconds < GENTLE_SECONDS
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGTERM if gentle else signal.SIGKILL)
        time.sleep(0.05)


def _accounts(host: Host, people: Collection[str]) -> dict[str, _Account]:
    """Of those who have an account that labhost created."""
    known, found = linux_accounts.passwd_entries(people), {}
    for name in people:
        try:
            user = user_state.load_user(host, name)
            entry = linux_accounts.passwd_entry(host, user, known) if user is not None else None
        except LabhostError:  # the state file is damaged
            entry = known.get(name)
        if entry is not None:
            found[name] = _Account(entry.pw_uid, _changed_at(host, name))
    return found


def _changed_at(host: Host, name: str) -> float:
    """When the key file of the host account was last replaced or changed; now if there is none."""
    now, age = time.clock_gettime(time.CLOCK_BOOTTIME), 0.0
    with suppress(OSError):
        path = user_state.home_folder(host, name) / ".ssh/authorized_keys"
        age = time.time() - path.stat().st_ctime  # of the rename
    return now - max(age, 0.0)


def _old(accounts: Mapping[str, _Account]) -> list[_Process]:
    """The processes of their connections that began before their keys changed."""
    theirs = {one.pid: (one, account) for one in _sshd_processes() if (account := _owner(one, accounts)) is not None}
    old = []
    for one, account in theirs.values():
        watcher, _ = theirs.get(one.parent, (one, account))
        is_orphan = one.uid != 0 and watcher is one
        if is_orphan or watcher.started <= account.changed_at + SLACK_SECONDS:
            old.append(one)
    return old


def _owner(process: _Process, accounts: Mapping[str, _Account]) -> _Account | None:
    match = _TITLE.fullmatch(process.title)
    account = accounts.get(match[1]) if match else None
    return account if account is not None and process.uid in (0, account.uid) else None


def _sshd_processes() -> Iterator[_Process]:
    """Those of this server's own sshd, not of one in somebody's privileged container."""
    mine = os.stat("/proc/self/ns/pid").st_ino
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has just ended
            found = _STAT.match(_read(f"/proc/{pid}/stat"))
            if found is None or found["program"] not in PROGRAMS or os.stat(f"/proc/{pid}/ns/pid").st_ino != mine:
                continue
            uid = re.search(r"^Uid:\t([0-9]+)", _read(f"/proc/{pid}/status"), re.MULTILINE)
            title = _read(f"/proc/{pid}/cmdline").split("\0")[0]
            started = int(found["started"]) / _TICKS
            yield _Process(int(pid), int(found["parent"]), started, int(uid[1]) if uid else 0, title)


def _read(path: str) -> str:
    with open(path, "rb") as stream:
        return stream.read(4096).decode("utf-8", "replace")
