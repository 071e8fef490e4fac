"""Which processes are ended with a person's key: real ones that look like those of sshd."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from labhost.accounts import linux_accounts
from labhost.host import user_state
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import host_sessions
from labhost.system import log

from tests.hostscripts import hosts
from tests.lab.waiting import eventually

pytestmark = pytest.mark.root
NAME, UID = "z10-testperson", 54_321
THEIRS = {
    f"sshd: {NAME} [priv]": 0,  # also before it has signed in
    f"sshd-session: {NAME} [priv]": 0,
    f"sshd: {NAME}": UID,
    f"sshd: {NAME}@notty": UID,
    f"sshd: {NAME}@pts/0,pts/12": UID,
}
OTHERS = {
    f"sshd: {NAME}2 [priv]": 0,
    f"sshd: {NAME}2@notty": UID + 1,
    f"sshd: {NAME}@notty": UID + 1,  # somebody else's title
    "sshd: unknown [priv]": 0,
    f"sshd: /usr/sbin/sshd -D [listener] {NAME}": 0,
}


class Programs:
    """Programs that wait, with chosen names, titles and uids."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._running = folder, list[subprocess.Popen[bytes]]()

    def start(self, title: str, uid: int, program: str = "sshd", *, stubborn: bool = False) -> subprocess.Popen[bytes]:
        path = self._folder / program
        if not path.exists():
            shutil.copy(shutil.which("sleep") or "", path)
        wrap = ["/usr/bin/env", "--ignore-signal=TERM"] if stubborn else ["/usr/bin/env"]
        command = [*wrap, "setpriv", f"--reuid={uid}", "--clear-groups", "bash", "-c", f"exec -a '{title}' {path} 60"]
        self._running.append(subprocess.Popen(command))
        comm = Path(f"/proc/{self._running[-1].pid}/comm")
        eventually(lambda: comm.read_text() == program + "\n", "the program")
        return self._running[-1]

    def stop(self) -> None:
        for each in self._running:
            each.kill()
            each.wait()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    folder = Path("/tmp") / f"z10-{os.getpid()}"
    folder.mkdir(mode=0o755)
    found = Programs(folder)
    try:
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The person has an account here, but no key file."""
    entry = pwd.struct_passwd((NAME, "x", UID, UID, "", "/", ""))
    monkeypatch.setattr(linux_accounts, "passwd_entry", lambda *_: entry)
    host = hosts.make(tmp_path)
    user_state.save_user(host, User(NAME))
    return host


def change_keys(host: Host) -> None:
    folder = host.paths.home / NAME / ".ssh"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "new").write_text("")
    (folder / "new").rename(folder / "authorized_keys")


def test_z10_the_processes_of_their_connections_end_and_no_others(host: Host, programs: Programs) -> None:
    others = [programs.start(title, uid) for title, uid in OTHERS.items()]
    others.append(programs.start(f"sshd: {NAME}@notty", UID, "lxc-start"))
    theirs = [programs.start(title, uid) for title, uid in THEIRS.items()]
    host_sessions.end(host, [NAME])
    assert [each.wait(5) != 0 for each in theirs] == [True] * len(theirs)
    assert [each.poll() for each in others] == [None] * len(others)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_z10_a_connection_from_after_the_change_goes_on(
    host: Host, programs: Programs, monkeypatch: pytest.MonkeyPatch, is_damaged: bool
) -> None:
    if is_damaged:
        (host.paths.state / f"users/{NAME}.json").write_text("{")
        entry = linux_accounts.passwd_entry(host, User(NAME))
        monkeypatch.setattr(linux_accounts, "passwd_entries", lambda _: {NAME: entry})
    old = programs.start(f"sshd: {NAME} [priv]", 0)
    change_keys(host)
    time.sleep(2 * host_sessions.SLACK_SECONDS)  # not a wait: the second process must be younger
    new = programs.start(f"sshd: {NAME} [priv]", 0)
    orphan = programs.start(f"sshd: {NAME}@notty", UID)
    host_sessions.end(host, [NAME])
    assert old.wait(5) != 0 and orphan.wait(5) != 0 and new.poll() is None


def test_z10_a_process_that_does_not_end_is_killed(host: Host, programs: Programs) -> None:
    stubborn = programs.start(f"sshd: {NAME} [priv]", 0, stubborn=True)
    host_sessions.end(host, [NAME])
    assert stubborn.wait(5) == -9


def test_z10_it_does_not_wait_for_what_cannot_be_killed(
    host: Host, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(log, "write", lambda text, **_: warnings.append(text))
    monkeypatch.setattr(os, "kill", lambda *_: None)
    running = programs.start(f"sshd: {NAME} [priv]", 0)
    began = time.monotonic()
    host_sessions.end(host, [NAME])
    assert time.monotonic() - began < host_sessions.SECONDS + 2
    monkeypatch.undo()
    assert running.poll() is None and str(running.pid) in warnings[0]
