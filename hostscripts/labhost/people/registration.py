"""Registers a person: steps noted in the journal, each safe to repeat; the login shell comes last.

A run that was killed is continued by the next one. A run that fails before there are container files is undone.
"""

import time
from typing import NamedTuple

from labhost import lxc
from labhost.accounts import linux_accounts, tombstones
from labhost.container import lifecycle, provision
from labhost.errors import LabhostError, PortalUnavailable, Refused
from labhost.host import Host, User, locks, user_state
from labhost.keys import applied_keys, key_files, ownership, set_keys
from labhost.keys.public_keys import as_entry
from labhost.people import removal, steps
from labhost.people.steps import Run, Step, with_accounts_locked
from labhost.portal import client
from labhost.storage import drivers
from labhost.system import Progress, check_name, log

LOCK_SECONDS = 300.0  # the first registration after a new template waits for its unpacking


class Registered(NamedTuple):
    user: User
    created: bool


def register(host: Host, name: str, progress: Progress) -> Registered:
    """Creates the account and the container, or completes them; LabhostError says what to do."""
    check_name(name)
    with locks.user(host, name, seconds=LOCK_SECONDS):
        user = user_state.load_user(host, name)
        linux_accounts.refuse_unmanaged(host, name, user)
        if user is not None and user.removal:
            progress.write("finishing an earlier removal first")
            removal.finish(host, user, progress)
            user = None
        _refuse_other_person(host, user)
        lifecycle.refuse_suspended(host, name)
        if user is not None and _complete(host, user):
            return Registered(user, created=False)
        run = Run(host, _continued(host, user or User(name)), progress)
        if "clone" not in run.user.steps:
            drivers.driver_of(host, run.user).check()
        try:
            _perform(run)
        except (LabhostError, OSError) as error:
            _undo(run)
            log.write(f"{name}: registration failed: {error}", warning=True)
            raise
    log.write(f"{name}: registered")
    removed = tombstones.load(host, name, run.user.subuid)
    if removed is not None and removed.kept_folders:
        kept = ", ".join(removed.kept_folders)
        progress.write(f"your earlier files are kept in {kept}; ask the lab's staff for them")
    return Registered(run.user, created=True)


def _refuse_other_person(host: Host, user: User | None) -> None:
    """Refused if the portal gave this name to another person since: they inherit nothing."""
    if user is None:
        return
    with locks.keys(host):
        if ownership.belongs_to_other_person(user, applied_keys.load(host)):
            text = f"{user.name} is {ownership.SOMEBODY_ELSE}: ask the lab's staff"
            raise Refused(text, reason="other_person", name=user.name)


def _complete(host: Host, user: User) -> bool:
    has_account = linux_accounts.passwd_entry(host, user) is not None
    return user.registered and has_account and drivers.driver_of(host, user).exists(user)


def _continued(host: Host, user: User) -> User:
    """What an earlier run left; steps whose result is gone are dropped, and so done again."""
    user.registered = False
    if linux_accounts.passwd_entry(host, user) is None:
        # A userdel by hand leaves the home: it is still ours, and the person's files in it are never removed.
        user.steps = ["clone"] if drivers.driver_of(host, user).exists(user) else []
        user.uid = user.gid = 0
        user.account = "creating" if user.account else ""
    elif not drivers.driver_of(host, user).exists(user):
        user.steps = user.steps[: user.steps.index("clone")] if "clone" in user.steps else user.steps
    return user


def _perform(run: Run) -> None:
    def note(step: str) -> None:
        if step not in run.user.steps:
            run.user.steps.append(step)
        # A step that is forgotten is done again; those that must not be repeated have noted that themselves.
        user_state.save_user(run.host, run.user, durable=False)

    done = [step.name for step in STEPS if _is_done(run.user, step.name)]
    steps.perform(run, STEPS, prefix="", note=note, done=done)


def _is_done(user: User, name: str) -> bool:
    """What may have changed meanwhile is redone; the container is started again if the next step needs it."""
    if name in ("fetch", "keys", "config", "shell"):
        return False
    return ("container-account" if name == "start" else name) in user.steps


def _undo(run: Run) -> None:
    """After a failure nothing stays of a person without container files; later failures keep what there is."""
    if "clone" in run.user.steps:
        return
    if run.user.account == "":
        user_state.delete_user(run.host, run.user.name)
        return
    if run.user.managed:
        drivers.driver_of(run.host, run.user).remove(run.user, run.account)
        lxc.stop_user_manager(run.account)
    linux_accounts.undo_create(run.host, run.user)


def _fetch(run: Run) -> None:
    user = run.user
    with locks.keys(run.host):
        revision = applied_keys.load(run.host).revision
    try:
        person = client.fetch_person(run.host.config, user.name)
    except PortalUnavailable as error:
        if not user.subuid:
            raise
        run.progress.write(f"warning: {error}; using the last known values")
        return
    if user.subuid not in (0, person.subuid):
        text = f"the portal now gives {user.name} other subordinate ids than before; ask the lab's staff"
        raise Refused(text, reason="subuid_changed", name=user.name, known=user.subuid, portal=person.subuid)
    user.port, user.subuid, user.ssh_config = person.port, person.subuid, person.ssh_config
    user.keys, user.keys_revision = [as_entry(key) for key in person.keys], revision
    user.limits, user.fetched_at = person.limits, time.time()


def _account(run: Run) -> None:
    with locks.accounts(run.host):
        linux_accounts.claim_numbers(run.host, run.user)
        linux_accounts.create(run.host, run.user)
    lxc.enable_linger(run.account)  # the user manager comes up during the next steps


def _keys(run: Run) -> None:
    with locks.keys(run.host):
        key_files.write(run.host, run.user, key_files.HOST, set_keys.current_keys(run.host, run.user))


def _clone(run: Run) -> None:
    driver = drivers.driver_of(run.host, run.user)
    run.user.storage = driver.name
    user_state.save_user(run.host, run.user)
    driver.create(run.user, run.account)


def _container_account(run: Run) -> None:
    provision.create_account(run.host, run.user, run.account)


def _shell(run: Run) -> None:
    run.user.registered = True
    with locks.accounts(run.host):
        linux_accounts.set_login_shell(run.host, run.user)
    with locks.keys(run.host):
        key_files.write(run.host, run.user, key_files.CONTAINER, set_keys.current_keys(run.host, run.user))
        user_state.save_user(run.host, run.user)


STEPS = (
    Step("fetch", "asking the portal", _fetch),
    Step("account", "creating the account on the server", _account),
    Step("groups", "adding it to its groups", with_accounts_locked(linux_accounts.join_groups)),
    Step("subuid", "assigning the subordinate ids", with_accounts_locked(linux_accounts.add_subids)),
    Step("keys", "writing the public keys", _keys),
    Step("usernet", "allowing the container network", with_accounts_locked(linux_accounts.grant_bridge)),
    Step("clone", "unpacking the template", _clone),
    Step("config", "writing the container's configuration", lambda run: lifecycle.write_config(run.host, run.user)),
    Step("start", "starting the container", lambda run: provision.start(run.host, run.user, run.account)),
    Step("container-account", "creating the account in the container", _container_account),
    Step("stop", "stopping the container", lambda run: provision.stop(run.host, run.account)),
    Step("shell", "setting the login shell", _shell),
)
