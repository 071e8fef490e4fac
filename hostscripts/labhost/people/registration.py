"""Register a container: a journaled sequence of steps, each safe to repeat; the login shell comes last.

A killed run is continued by the next one. A run that fails before the container ever started is taken back.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from labhost import lxc
from labhost.accounts import linux_accounts, tombstones
from labhost.container import lifecycle, provision
from labhost.errors import LabhostError, PortalUnavailable, Refused
from labhost.host import locks, user_state
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import applied_keys, key_files, ownership, set_keys
from labhost.keys.public_keys import as_entry
from labhost.people import removal
from labhost.portal import client
from labhost.storage import drivers
from labhost.system import failpoints, log
from labhost.system.names import check_name
from labhost.system.processes import Account
from labhost.system.progress import Progress

WAIT = 300.0


@dataclass(frozen=True)
class Registered:
    user: User
    created: bool


@dataclass
class Run:
    """One attempt to register one person."""

    host: Host
    user: User
    progress: Progress

    @property
    def account(self) -> Account:
        return linux_accounts.account_of(self.host, self.user)


def register(host: Host, name: str, progress: Progress) -> Registered:
    """The seed's "Register a Container", steps 5 to 11; LabhostError says what to do."""
    check_name(name)
    with locks.hold(host, locks.user_lock(name), seconds=WAIT, doing=f"{name} is being registered"):
        user = user_state.load_user(host, name)
        linux_accounts.refuse_unmanaged(host, name, user)
        if user is not None and user.removal:
            progress.write("an earlier removal is finished first")
            removal.finish(host, user, progress)
            user = None
        _refuse_somebody_else(host, user)
        if user is not None and _complete(host, user):
            return Registered(user, created=False)
        run = Run(host, _continued(host, user or User(name)), progress)
        if "clone" not in run.user.steps:
            drivers.driver_of(host, run.user).check()
        try:
            _steps(run)
        except (LabhostError, OSError) as error:
            _take_back(run)
            log.write(f"{name}: registration failed: {error}", warning=True)
            raise
    log.write(f"{name}: registered")
    gone = tombstones.load(host, name)
    if gone is not None and gone.kept_folders and gone.subuid == run.user.subuid:  # not a former person of that name
        progress.write(
            f"files of an earlier container are kept in {', '.join(gone.kept_folders)}; ask the lab's staff for them"
        )
    return Registered(run.user, created=True)


def _refuse_somebody_else(host: Host, user: User | None) -> None:
    """The portal has deleted this person and given her name to another: who comes now inherits nothing."""
    if user is None:
        return
    with locks.hold(host, locks.KEYS, seconds=set_keys.WAIT, doing="keys are being written"):
        if ownership.belongs_to_other_person(user, applied_keys.load(host)):
            raise Refused(f"{user.name} is {ownership.SOMEBODY_ELSE}: ask the lab's staff")


def _complete(host: Host, user: User) -> bool:
    return (
        user.registered
        and linux_accounts.passwd_entry(host, user) is not None
        and drivers.driver_of(host, user).exists(user)
    )


def _continued(host: Host, user: User) -> User:
    """What is left of an earlier run; steps whose result is gone are forgotten, and so done again."""
    user.registered = False
    if linux_accounts.passwd_entry(host, user) is None:
        # Somebody's userdel leaves the home: it is still ours, and her files in it are never taken back.
        user.steps = ["clone"] if drivers.driver_of(host, user).exists(user) else []
        user.uid = user.gid = 0
        user.account = "creating" if user.account else ""
    elif not drivers.driver_of(host, user).exists(user):
        user.steps = user.steps[: user.steps.index("clone")] if "clone" in user.steps else user.steps
    return user


def _steps(run: Run) -> None:
    for number, (name, text, action) in enumerate(STEPS, 1):
        if _is_done(run.user, name):
            continue
        run.progress.write(f"[{number}/{len(STEPS)}] {text}")
        failpoints.hit(f"before:{name}")
        action(run)
        failpoints.hit(f"unnoted:{name}")
        if name not in run.user.steps:
            run.user.steps.append(name)
        # What is forgotten is done again; each step that must not be has noted that itself.
        user_state.save_user(run.host, run.user, durable=False)
        failpoints.hit(name)


def _is_done(user: User, name: str) -> bool:
    """What may have changed meanwhile is redone; a container is started again if it must run for `inside`."""
    if name in ("fetch", "keys", "config", "shell"):
        return False
    return ("inside" if name == "start" else name) in user.steps


def _take_back(run: Run) -> None:
    """After a failure nothing stays of a person without a container; later failures keep what there is."""
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
    with locks.hold(run.host, locks.KEYS, seconds=set_keys.WAIT, doing="keys are being written"):
        revision = applied_keys.load(run.host).revision
    try:
        person = client.fetch_person(run.host.config, user.name)
    except PortalUnavailable as error:
        if not user.subuid:
            raise
        run.progress.write(f"warning: {error}; going on with what was known")
        return
    if user.subuid not in (0, person.subuid):
        raise Refused(f"the portal now gives {user.name} other subordinate ids than before; ask the lab's staff")
    user.port, user.subuid, user.ssh_config = person.port, person.subuid, person.ssh_config
    user.keys, user.keys_revision = [as_entry(key) for key in person.keys], revision
    user.fetched_at = time.time()


def _account(run: Run) -> None:
    with locks.hold(run.host, locks.ACCOUNTS, seconds=linux_accounts.WAIT, doing="accounts are being changed"):
        linux_accounts.claim_numbers(run.host, run.user)
        linux_accounts.create(run.host, run.user)
    lxc.enable_linger(run.account)  # it comes up while the next steps are done


def _under_accounts_lock(action: Callable[[Host, User], None]) -> Callable[[Run], None]:
    def step(run: Run) -> None:
        with locks.hold(run.host, locks.ACCOUNTS, seconds=linux_accounts.WAIT, doing="accounts are being changed"):
            action(run.host, run.user)

    return step


def _keys(run: Run) -> None:
    with locks.hold(run.host, locks.KEYS, seconds=set_keys.WAIT, doing="keys are being written"):
        key_files.write(run.host, run.user, key_files.HOST, set_keys.current_keys(run.host, run.user))


def _clone(run: Run) -> None:
    driver = drivers.driver_of(run.host, run.user)
    run.user.storage = driver.name
    user_state.save_user(run.host, run.user)
    driver.create(run.user, run.account)


def _config(run: Run) -> None:
    lifecycle.write_config(run.host, run.user)


def _start(run: Run) -> None:
    provision.start(run.host, run.user, run.account)


def _inside(run: Run) -> None:
    provision.create_account(run.host, run.user, run.account)


def _stop(run: Run) -> None:
    provision.stop(run.host, run.account)


def _shell(run: Run) -> None:
    with locks.hold(run.host, locks.ACCOUNTS, seconds=linux_accounts.WAIT, doing="accounts are being changed"):
        linux_accounts.set_login_shell(run.host, run.user)
    with locks.hold(run.host, locks.KEYS, seconds=set_keys.WAIT, doing="keys are being written"):
        run.user.registered = True
        key_files.write(run.host, run.user, key_files.CONTAINER, set_keys.current_keys(run.host, run.user))
        user_state.save_user(run.host, run.user)


STEPS: tuple[tuple[str, str, Callable[[Run], None]], ...] = (
    ("fetch", "asking the portal", _fetch),
    ("account", "making the account on the server", _account),
    ("groups", "joining its groups", _under_accounts_lock(linux_accounts.join_groups)),
    ("subuid", "giving the subordinate ids", _under_accounts_lock(linux_accounts.add_subids)),
    ("keys", "writing the public keys", _keys),
    ("usernet", "allowing the container network", _under_accounts_lock(linux_accounts.grant_bridge)),
    ("clone", "unpacking the template", _clone),
    ("config", "writing the container's configuration", _config),
    ("start", "starting the container", _start),
    ("inside", "making the account inside", _inside),
    ("stop", "stopping the container", _stop),
    ("shell", "setting the login shell", _shell),
)
