"""Removes a person's container and account: steps in the safe order, noted in the journal, each safe to repeat.

First nobody can log in, then nothing runs, then nothing is left; the files are kept unless they are to be purged.
A run that was killed is continued by the next one, and by a registration of the same person.
"""

from pathlib import Path

from labhost.accounts import linux_accounts, tombstones
from labhost.errors import LabhostError, coded
from labhost.host import Host, User, locks, user_state
from labhost.keys import key_files
from labhost.people import shutdown, steps
from labhost.people.steps import Run, Step, with_accounts_locked
from labhost.storage import drivers
from labhost.system import Account, Progress, check_name, failpoints, log

KEEP, PURGE = "keep", "purge"


def remove(host: Host, name: str, progress: Progress, *, purge: bool = False) -> tombstones.Tombstone:
    """Removes all that the person has on this server, but their files unless `purge`.

    NotRegistered if there is nothing. The error of a run that could not finish says what is not done yet.
    """
    check_name(name)
    with locks.user(host, name):
        user = user_state.load_user(host, name)
        if user is None:
            return _purge_kept_files(host, name, progress, purge=purge)
        if purge:
            user.removal = PURGE
        return finish(host, user, progress)


def finish(host: Host, user: User, progress: Progress) -> tombstones.Tombstone:
    """Begins or continues a removal. The person's lock must be held."""
    run = Run(host, user, progress)
    _adopt(run)
    done: list[str] = []
    try:
        steps.perform(run, STEPS, prefix="remove:", note=done.append)
    except (LabhostError, OSError) as error:
        log.write(f"{user.name}: removal stopped: {error}", warning=True)
        raise _incomplete(error, [step.text for step in STEPS if step.name not in done]) from error
    removed = tombstones.load(host, user.name) or tombstones.Tombstone(user.name)
    if user.removal == PURGE:
        removed = tombstones.purge(host, removed)
    log.write(f"{user.name}: removed; files kept in: {', '.join(removed.kept_folders) or 'none'}")
    return removed


def _incomplete(error: LabhostError | OSError, left: list[str]) -> LabhostError:
    """The error of a run that stopped; `cause` and the other parameters are those of the error that stopped it."""
    cause, steps_left = coded(error), ", ".join(left)
    params = {**cause.params, "cause": cause.reason, "left": steps_left}
    return LabhostError(f"{error}; not done yet: {steps_left}; run it again", reason="removal_incomplete", **params)


def _purge_kept_files(host: Host, name: str, progress: Progress, *, purge: bool) -> tombstones.Tombstone:
    removed = tombstones.load(host, name)
    if removed is None:
        raise user_state.no_account(host, name)
    if purge and removed.kept_folders:
        progress.write("deleting the kept files")
        removed = tombstones.purge(host, removed)
        log.write(f"{name}: kept files deleted")
    return removed


def _adopt(run: Run) -> None:
    """Takes over the account of a registration that was killed around useradd, before its ids were noted."""
    user = run.user
    linux_accounts.refuse_unmanaged(run.host, user.name, user)
    if user.account == "creating" and (entry := linux_accounts.passwd(user.name)) is not None:
        user.account, user.uid, user.gid = "created", entry.pw_uid, entry.pw_gid
        user_state.save_user(run.host, user)


def _note(run: Run) -> None:
    """From here on pushes, starts and port rules skip the person."""
    user = run.user
    with locks.keys(run.host):
        user.removal = user.removal or KEEP
        user.registered, user.desired_state = False, "stopped"
        user_state.save_user(run.host, user)


def _keys(run: Run) -> None:
    with locks.keys(run.host):
        if (user_state.home_folder(run.host, run.user.name) / ".ssh").is_dir():
            key_files.write(run.host, run.user, key_files.HOST, ())


def _data(run: Run) -> None:
    host, user = run.host, run.user
    home = user_state.home_folder(host, user.name)
    driver = drivers.driver_of(host, user)
    driver.detach(user, Account(user.name, user.uid, user.gid, str(home)))
    driver.release(user)
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


STEPS = (
    Step("note", "recording the removal", _note),
    Step("shell", "disabling the login shell", with_accounts_locked(linux_accounts.set_login_shell)),
    Step("keys", "removing the public keys", _keys),
    *shutdown.STEPS,
    Step("data", "moving or deleting the files", _data),
    Step("subuid", "removing the subordinate ids", with_accounts_locked(linux_accounts.remove_subids)),
    Step("usernet", "revoking the container network", with_accounts_locked(linux_accounts.revoke_bridge)),
    Step("account", "deleting the account", with_accounts_locked(linux_accounts.delete)),
    Step("forget", "closing the journal", _forget),
)
