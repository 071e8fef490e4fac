"""Remove a container: a journaled sequence of steps in the safe order, each safe to repeat.

First nobody can come in, then nothing runs, then nothing is left; the files are kept unless they are to be purged.
A killed run is continued by the next one, and by a registration of the same person.
"""

import os
import pwd
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labhost import lxc
from labhost.accounts import linux_accounts, tombstones
from labhost.container import lifecycle
from labhost.errors import LabhostError, NotRegistered
from labhost.host import locks, user_state
from labhost.host.config import SUBUID_COUNT, Host
from labhost.host.user_state import User
from labhost.keys import key_files, set_keys
from labhost.storage import drivers
from labhost.system import failpoints, log, logind
from labhost.system.names import check_name
from labhost.system.processes import Account
from labhost.system.processes import run as command
from labhost.system.progress import Progress

WAIT = 120.0
STOP_GRACE = 10
END_SECONDS = 20.0
KEEP, PURGE = "keep", "purge"


@dataclass
class Run:
    """One attempt to remove one person's container."""

    host: Host
    user: User
    progress: Progress

    @property
    def account(self) -> Account | None:
        entry = linux_accounts.passwd_entry(self.host, self.user)
        return Account(self.user.name, entry.pw_uid, entry.pw_gid, entry.pw_dir) if entry is not None else None


def remove(host: Host, name: str, progress: Progress, *, purge: bool = False) -> tombstones.Tombstone:
    """Everything of the person on this server, but her files unless `purge`. The error of a run that could not
    finish says what is done and what is not; NotRegistered if there is nothing of hers."""
    check_name(name)
    with locks.hold(host, locks.user_lock(name), seconds=WAIT, doing=f"{name}'s container is at work"):
        user = user_state.load_user(host, name)
        if user is None:
            return _purge_kept(host, name, progress, purge=purge)
        if purge:
            user.removal = PURGE
        return finish(host, user, progress)


def finish(host: Host, user: User, progress: Progress) -> tombstones.Tombstone:
    """Begins or goes on with a removal. The person's lock must be held."""
    run = Run(host, user, progress)
    _adopt(run)
    done: list[str] = []
    for number, (name, text, action) in enumerate(STEPS, 1):
        progress.write(f"[{number}/{len(STEPS)}] {text}")
        failpoints.hit(f"before:remove:{name}")
        try:
            action(run)
        except (LabhostError, OSError) as error:
            left = [words for step, words, _ in STEPS if step not in done]
            log.write(f"{user.name}: the removal stopped: {error}", warning=True)
            raise LabhostError(f"{error}; not done yet: {', '.join(left)}; say it again") from error
        done.append(name)
        failpoints.hit(f"remove:{name}")
    removed = tombstones.load(host, user.name) or tombstones.Tombstone(user.name)
    if user.removal == PURGE:
        removed = tombstones.purge(host, removed)
    log.write(f"{user.name}: removed; files: {', '.join(removed.kept_folders) or 'none kept'}")
    return removed


def _purge_kept(host: Host, name: str, progress: Progress, *, purge: bool) -> tombstones.Tombstone:
    removed = tombstones.load(host, name)
    if removed is None:
        raise NotRegistered(f"{name} has nothing on {host.config.server.name}")
    if purge and removed.kept_folders:
        progress.write("deleting the kept files")
        removed = tombstones.purge(host, removed)
        log.write(f"{name}: kept files deleted")
    return removed


def _adopt(run: Run) -> None:
    """A registration that was killed around useradd has perhaps made the account, without its ids in the journal."""
    user = run.user
    linux_accounts.refuse_unmanaged(run.host, user.name, user)
    if user.account == "creating":
        try:
            entry = pwd.getpwnam(user.name)
        except KeyError:
            return
        user.account, user.uid, user.gid = "created", entry.pw_uid, entry.pw_gid
        user_state.save_user(run.host, user)


def _note(run: Run) -> None:
    """From here on pushes, starts and rules pass her by."""
    user = run.user
    with locks.hold(run.host, locks.KEYS, seconds=set_keys.WAIT, doing="keys are being written"):
        user.removal = user.removal or KEEP
        user.registered, user.desired_state = False, "stopped"
        user_state.save_user(run.host, user)


def _under_accounts_lock(action: Callable[[Host, User], None]) -> Callable[[Run], None]:
    def step(run: Run) -> None:
        with locks.hold(run.host, locks.ACCOUNTS, seconds=linux_accounts.WAIT, doing="accounts are being changed"):
            action(run.host, run.user)

    return step


def _deny_network(host: Host, user: User) -> None:
    linux_accounts.revoke_bridge(host, user.name)


def _keys(run: Run) -> None:
    with locks.hold(run.host, locks.KEYS, seconds=set_keys.WAIT, doing="keys are being written"):
        if (user_state.home_folder(run.host, run.user.name) / ".ssh").is_dir():
            key_files.write(run.host, run.user, key_files.HOST, ())


def _sessions(run: Run) -> None:
    account = run.account
    if account is not None:
        end_sessions(account)


def end_sessions(account: Account) -> None:
    """Ends her logins on this server; her container and its user manager go on."""
    listed = _loginctl("show-user", account.name, "--property=Sessions", "--value")
    for session in listed.split():
        if _loginctl("show-session", session, "--property=Class", "--value").strip() == "user":
            _loginctl("terminate-session", session)


def _loginctl(*words: str) -> str:
    """loginctl's answer; empty when it knows nothing of the person, which is no error here."""
    return logind.loginctl(*words).out.decode("ascii", "replace")


def _rules(run: Run) -> None:
    lifecycle.apply_rules(run.host)


def _container(run: Run) -> None:
    account = run.account
    if account is None or not lxc.is_running(run.host, account):
        return
    try:
        lxc.stop(run.host, account, grace=STOP_GRACE)
    except LabhostError as error:
        run.progress.write(f"warning: {error}; ending its processes instead")


def _manager(run: Run) -> None:
    user = run.user
    if run.account is not None:
        _loginctl("disable-linger", user.name)
        command(["/usr/bin/systemctl", "stop", f"user@{user.uid}.service"], timeout=40)
        _loginctl("terminate-user", user.name)
    Path("/var/lib/systemd/linger", user.name).unlink(missing_ok=True)
    _end_processes(user, own=run.account is not None)


def _end_processes(user: User, *, own: bool) -> None:
    """Kills whatever runs under her uid or one of her subordinate ids."""
    ids = range(user.subuid, user.subuid + SUBUID_COUNT) if user.subuid else range(0)
    deadline = time.monotonic() + END_SECONDS
    while found := [pid for pid, uid in _processes() if uid in ids or (own and uid == user.uid)]:
        if time.monotonic() >= deadline:
            raise LabhostError(f"processes of {user.name} do not end ({', '.join(map(str, found[:5]))})")
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def _processes() -> list[tuple[int, int]]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                found.append((int(entry.name), entry.stat().st_uid))
            except FileNotFoundError:
                continue
    return found


def _data(run: Run) -> None:
    host, user = run.host, run.user
    home = user_state.home_folder(host, user.name)
    drivers.driver_of(host, user).detach(user, Account(user.name, user.uid, user.gid, str(home)))
    if user.removal == PURGE:
        tombstones.delete(home, user.subuid)
        return
    if not user.kept_folder:
        user.kept_folder = str(tombstones.new_folder(host, user.name))
        user_state.save_user(host, user)
        failpoints.hit("remove:place")
    tombstones.move_aside(home, Path(user.kept_folder))


def _forget(run: Run) -> None:
    tombstones.record(run.host, run.user)
    failpoints.hit("remove:tombstone")
    user_state.delete_user(run.host, run.user.name)


STEPS: tuple[tuple[str, str, Callable[[Run], None]], ...] = (
    ("note", "noting the removal", _note),
    ("shell", "taking the login shell", _under_accounts_lock(linux_accounts.revoke_login_shell)),
    ("keys", "taking the public keys", _keys),
    ("sessions", "ending open sessions", _sessions),
    ("rules", "taking the port rules", _rules),
    ("container", "stopping the container", _container),
    ("manager", "ending the user manager", _manager),
    ("data", "putting the files aside, or deleting them", _data),
    ("subuid", "taking the subordinate ids", _under_accounts_lock(linux_accounts.remove_subids)),
    ("usernet", "taking the container network", _under_accounts_lock(_deny_network)),
    ("account", "removing the account", _under_accounts_lock(linux_accounts.delete)),
    ("forget", "closing the journal", _forget),
)
