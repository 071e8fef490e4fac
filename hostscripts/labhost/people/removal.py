"""Removes a person's container and account: steps in the safe order, noted in the journal, each safe to repeat.

First nobody can log in, then nothing runs, then nothing is left; files and snapshots stay unless purged. A run that was
killed is continued by the next one, and by a registration of the same person.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from labhost.accounts import linux_accounts, tombstones
from labhost.errors import LabhostError, NotRegistered
from labhost.host import Host, User, locks, suspensions, user_state
from labhost.keys import key_files
from labhost.people import shutdown, steps
from labhost.people.steps import Run, Step, with_accounts_locked
from labhost.storage import drivers, snapshot_store
from labhost.system import Account, Progress, check_name, failpoints, log

KEEP, PURGE = "keep", "purge"


def remove(host: Host, name: str, progress: Progress, *, purge: bool = False) -> tombstones.Tombstone:
    """Removes all that the person has on this server, but their files and snapshots unless `purge`.

    NotRegistered if there is nothing. The error of a run that could not finish says what is not done yet.
    """
    check_name(name)
    with suppress(NotRegistered):
        _cut_off(host, shutdown.find(host, name), progress)
    with shutdown.lock(host, name) as busy:
        if busy is not None:
            raise _without_lock(host, name, progress, busy)
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
        steps.perform(run, STEPS, prefix="remove:", note=done.append, go_on=ACCESS)
    except (LabhostError, OSError) as error:
        log.write(f"{user.name}: removal stopped: {error}", warning=True)
        raise steps.incomplete(error, STEPS, done, reason="removal_incomplete") from error
    removed = tombstones.load(host, user.name, user.subuid) or tombstones.Tombstone(user.name)
    if user.removal == PURGE:
        removed = tombstones.purge(host, removed)
    log.write(f"{user.name}: removed; files kept in: {', '.join(removed.kept_folders) or 'none'}")
    return removed


def _cut_off(host: Host, user: User, progress: Progress) -> None:
    """What ends the person's own hold on their lock. A step that fails is repeated with the removal."""
    some = shutdown.cut_off()
    with suppress(LabhostError, OSError):
        steps.perform(Run(host, user, progress), some, prefix="cut:", note=lambda _: None, go_on=_names(some))


def _without_lock(host: Host, name: str, progress: Progress, busy: LabhostError) -> LabhostError:
    """Ends the access of somebody whose lock another command holds; the error that says what is left."""
    done: list[str] = []
    with suppress(LabhostError, OSError):
        run = Run(host, shutdown.find(host, name), progress)
        steps.perform(run, shutdown.STEPS, prefix="cut:", note=done.append, go_on=_names(shutdown.STEPS))
    return steps.incomplete(busy, STEPS, done, reason="removal_incomplete")


def _names(some: Iterable[Step]) -> list[str]:
    return [step.name for step in some]


def _purge_kept_files(host: Host, name: str, progress: Progress, *, purge: bool) -> tombstones.Tombstone:
    removed = tombstones.find_last(host, name)
    if removed is None:
        raise user_state.no_account(host, name)
    if purge:
        progress.write("deleting the kept files and snapshots")
        removed = tombstones.purge(host, removed)
        snapshot_store.purge(host, removed.subuid)
        log.write(f"{name}: kept files and snapshots deleted")
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


def _snapshots(run: Run) -> None:
    if run.user.removal == PURGE:
        snapshot_store.purge(run.host, run.user.subuid)


def _forget(run: Run) -> None:
    tombstones.record(run.host, run.user)
    failpoints.hit("remove:tombstone")
    suspensions.release(run.host, run.user.name)  # before the journal, which an interrupted removal continues from
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
    Step("snapshots", "keeping or deleting the snapshots", _snapshots),
    Step("forget", "closing the journal", _forget),
)
ACCESS = ("note", "shell", "keys", *_names(shutdown.STEPS))  # all of these are tried before anything else stops it
