"""Ends a person's access to this server: logins, sessions, port rules, container, processes. Safe to repeat.

A session of theirs may hold their lock, so `cut_off` needs no lock and comes first. A step that fails stops none of
the others.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from labhost import lxc
from labhost.accounts import linux_accounts
from labhost.container import lifecycle
from labhost.errors import Busy, LabhostError
from labhost.host import SUBUID_COUNT, Host, User, locks, suspensions, user_state
from labhost.keys import applied_keys, key_files
from labhost.network import flows
from labhost.people.steps import Run, Step
from labhost.system import files, logind, process_table, processes

STOP_GRACE = 10
END_SECONDS = 20.0
LOCK_SECONDS = 20.0  # nobody's session holds the lock any more, only a command of the portal or of staff
WAIT = 20.0  # for the locks of the account files and of the key files
KEYS_MOST = 16 << 20  # bytes of a key file


@contextmanager
def lock(host: Host, name: str) -> Iterator[Busy | None]:
    """Holds the person's lock; gives the error if another command does not release it, and goes on without the lock."""
    busy: Busy | None = None
    with ExitStack() as stack:
        try:
            stack.enter_context(locks.user(host, name, seconds=LOCK_SECONDS))
        except Busy as error:
            busy = error
        yield busy


def find(host: Host, name: str) -> User:
    """The person's state, also if their journal is damaged: then as much as the account tells. NotRegistered."""
    try:
        user = user_state.load_user(host, name)
    except LabhostError:
        entry = linux_accounts.passwd(name)
        user = entry and User(name, entry.pw_uid, entry.pw_gid, "created")
        if user is not None:
            linux_accounts.refuse_unmanaged(host, name, user)
    if user is None or not user.managed:
        raise user_state.no_account(host, name)
    return user


def disable_login(run: Run) -> None:
    """Takes the login shell and the keys away; one of the two is enough. Busy if neither can be changed now."""
    host, user, problems = run.host, run.user, []
    try:
        with locks.accounts(host, seconds=WAIT):
            linux_accounts.set_login_shell(host, user, linux_accounts.NOLOGIN)
    except (LabhostError, OSError) as error:
        problems.append(f"the login shell cannot be disabled ({error})")
    try:
        with locks.keys(host, seconds=WAIT):
            key_files.write(host, user, key_files.HOST, ())
    except (LabhostError, OSError) as error:
        problems.append(f"the keys cannot be removed ({error})")
    for problem in problems:
        run.progress.write(f"warning: {problem}")
    if not _is_login_off(host, user):
        text = f"the keys of {user.name} are still live here: {'; '.join(problems)}"
        raise Busy(text, reason="keys_still_live", name=user.name)


def _is_login_off(host: Host, user: User) -> bool:
    """Judged by the disk: the account has no login shell, or no keys."""
    entry = linux_accounts.passwd_entry(host, user)
    return entry is None or entry.pw_shell == linux_accounts.NOLOGIN or not _holds_keys(host, user)


def _holds_keys(host: Host, user: User) -> bool:
    try:
        text = files.read_text(user_state.home_folder(host, user.name) / ".ssh" / key_files.NAME, KEYS_MOST)
    except (LabhostError, OSError):
        return True
    return bool(text and text.strip())


def _mark(run: Run, revision: int) -> None:
    """From here on no push, start or registration gives access back.

    A portal that was restored may name an older revision than the applied one: the later of the two counts.
    """
    applied = 0
    with suppress(LabhostError, OSError):
        applied = applied_keys.load(run.host).revision
    suspensions.suspend(run.host, run.user.name, max(revision, applied))


def _sessions(run: Run) -> None:
    """Ends the person's logins on this server; their container and user manager go on."""
    if run.has_account:
        logind.end_sessions(run.user.name, run.user.uid)


def _container(run: Run) -> None:
    if not run.has_account or not lxc.is_running(run.host, run.account):
        return
    try:
        lxc.stop(run.host, run.account, grace=STOP_GRACE)
    except LabhostError as error:
        run.progress.write(f"warning: {error}; killing its processes instead")
    flows.forget(run.user.address)


def _manager(run: Run) -> None:
    user, has_account = run.user, run.has_account
    if has_account:
        logind.loginctl("disable-linger", user.name)
        processes.run(["/usr/bin/systemctl", "stop", f"user@{user.uid}.service"], timeout=40)
        logind.loginctl("terminate-user", user.name)
    Path("/var/lib/systemd/linger", user.name).unlink(missing_ok=True)
    _kill_processes(user, own=has_account)
    lifecycle.apply_rules(run.host)  # again, if it could not be noted that the container should be stopped


def _kill_processes(user: User, *, own: bool) -> None:
    """Kills whatever runs under the person's subordinate ids and, with `own`, under their uid."""
    ids = range(user.subuid, user.subuid + SUBUID_COUNT) if user.subuid else range(0)
    process_table.end(
        lambda table: [process for process in table if process.uid in ids or (own and process.uid == user.uid)],
        seconds=END_SECONDS,
        owner=user.name,
    )


def cut_off(revision: int = 0) -> Sequence[Step]:
    """The steps that need no lock. A push of keys after `revision`, and after the applied one, ends the suspension."""
    return (
        Step("cut", "ending open sessions", _sessions),
        Step("mark", "recording the suspension", lambda run: _mark(run, revision)),
        Step("login", "disabling the login", disable_login),
    )


STEPS = (
    Step("sessions", "ending open sessions", _sessions),
    Step("rules", "removing the port rules", lambda run: lifecycle.apply_rules(run.host)),
    Step("container", "stopping the container", _container),
    Step("manager", "ending all processes", _manager),
)
