"""How a difference is corrected: by the same verbs that made things right in the first place, under their locks."""

import os
import pwd
from collections.abc import Callable, Mapping
from pathlib import Path

from labhost.accounts import linux_accounts, tombstones
from labhost.admin import installation
from labhost.admin.doctor.checks import Finding
from labhost.admin.doctor.inspection import folders_of
from labhost.container import autostart, lifecycle
from labhost.errors import LabhostError
from labhost.host import locks, user_state
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import applied_keys, key_files, set_keys
from labhost.people import registration, removal
from labhost.storage import drivers
from labhost.system import files
from labhost.system.progress import Progress

WAIT = 30.0


def apply(host: Host, item: Finding) -> None:
    """LabhostError or OSError if it could not be corrected. Safe to repeat."""
    REMEDIES[item.remedy](host, item)


def _say() -> Progress:
    return Progress(open(os.devnull, "w", encoding="utf-8"))


def _user(host: Host, item: Finding) -> User:
    user = user_state.load_user(host, item.who)
    if user is None:
        raise LabhostError(f"{item.who} has no journal any more; run labhost doctor again")
    return user


def _with_accounts(action: Callable[[Host, User], object]) -> Callable[[Host, Finding], None]:
    def remedy(host: Host, item: Finding) -> None:
        with (
            locks.hold(host, locks.user_lock(item.who), seconds=WAIT, doing=f"{item.who}'s container is at work"),
            locks.hold(host, locks.ACCOUNTS, seconds=linux_accounts.WAIT, doing="accounts are being changed"),
        ):
            action(host, _user(host, item))

    return remedy


def _rules(host: Host, item: Finding) -> None:
    lifecycle.apply_rules(host)


def _shell(host: Host, user: User) -> None:
    (linux_accounts.set_login_shell if user.registered else linux_accounts.revoke_login_shell)(host, user)


def _usernet(host: Host, item: Finding) -> None:
    with locks.hold(host, locks.ACCOUNTS, seconds=linux_accounts.WAIT, doing="accounts are being changed"):
        user = user_state.load_user(host, item.who)
        if user is not None:
            linux_accounts.grant_bridge(host, user)
            return
        linux_accounts.revoke_bridge(host, item.who)


def _keys(host: Host, item: Finding) -> None:
    with locks.hold(host, locks.KEYS, seconds=set_keys.WAIT, doing="keys are being written"):
        user = _user(host, item)
        for place in (key_files.HOST, key_files.CONTAINER):
            key_files.write(host, user, place, set_keys.current_keys(host, user))


def _register_keys(host: Host, item: Finding) -> None:
    with locks.hold(host, locks.KEYS, seconds=set_keys.WAIT, doing="keys are being written"):
        text = applied_keys.load(host).users.render_register()
        files.write_atomic(host.paths.home / "register/.ssh/authorized_keys", text, mode=0o644)


def _folder(host: Host, item: Finding) -> None:
    if item.detail not in map(str, folders_of(host, item.who)):
        raise LabhostError(f"{item.detail} is no folder of labhost's")
    path = Path(item.detail)
    path.mkdir(mode=0o755, exist_ok=True)
    _make_roots(path, 0o755)


def _make_roots(path: Path, mode: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(fd, 0, 0)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _trust(host: Host, item: Finding) -> None:
    path = Path(item.detail)
    if str(path) not in installation.untrusted():
        return
    _make_roots(path, os.lstat(path).st_mode & 0o7755)


def _kept(host: Host, item: Finding) -> None:
    _make_roots(host.paths.home / tombstones.FOLDER, 0o700)


def _debris(host: Host, item: Finding) -> None:
    Path(item.detail).unlink(missing_ok=True)


def _leftovers(host: Host, item: Finding) -> None:
    with locks.hold(host, locks.user_lock(item.who), seconds=WAIT, doing=f"{item.who}'s container is at work"):
        user = _user(host, item)
        drivers.driver_of(host, user).remove_leftovers(user, linux_accounts.account_of(host, user))


def _attach(host: Host, item: Finding) -> None:
    with locks.hold(host, locks.user_lock(item.who), seconds=WAIT, doing=f"{item.who}'s container is at work"):
        user = _user(host, item)
        drivers.driver_of(host, user).attach(user, linux_accounts.account_of(host, user))


def _config(host: Host, item: Finding) -> None:
    with locks.hold(host, locks.user_lock(item.who), seconds=WAIT, doing=f"{item.who}'s container is at work"):
        lifecycle.write_config(host, _user(host, item))


def _port(host: Host, item: Finding) -> None:
    with locks.hold(host, locks.user_lock(item.who), seconds=WAIT, doing=f"{item.who}'s container is at work"):
        user, port = _user(host, item), int(item.detail)
        holder = [other.name for other in user_state.all_users(host) if other.port == port and other.name != user.name]
        if holder:
            raise LabhostError(f"port {port} belongs to {holder[0]} here")
        user.port = port
        user_state.save_user(host, user)
    lifecycle.apply_rules(host)


def _adopt(host: Host, item: Finding) -> None:
    """A new journal for an account that labhost has made; its registration then goes through every step again."""
    with locks.hold(host, locks.user_lock(item.who), seconds=WAIT, doing=f"{item.who}'s container is at work"):
        file = host.paths.state / "users" / f"{item.who}.json"
        if file.exists():
            os.rename(file, file.with_name(f"{item.who}.damaged"))
        user = User(item.who)
        try:
            found = pwd.getpwnam(item.who)
        except KeyError:
            return
        user.account, user.uid, user.gid = "created", found.pw_uid, found.pw_gid
        linux_accounts.refuse_unmanaged(host, item.who, user)
        container_files = drivers.driver_of(host, user)
        user.steps = ["clone"] if container_files.exists(user) else []
        user_state.save_user(host, user)
    _register(host, item)


def _register(host: Host, item: Finding) -> None:
    registration.register(host, item.who, _say())


def _remove(host: Host, item: Finding) -> None:
    removal.remove(host, item.who, _say())


def _start(host: Host, item: Finding) -> None:
    autostart.start_one(host, item.who, _say())


def _stop(host: Host, item: Finding) -> None:
    user = _user(host, item)
    if user.desired_state != "running":
        lifecycle.stop(host, user, _say())


REMEDIES: Mapping[str, Callable[[Host, Finding], None]] = {
    "trust": _trust,
    "adopt": _adopt,
    "register": _register,
    "remove": _remove,
    "usernet": _usernet,
    "register_keys": _register_keys,
    "kept": _kept,
    "debris": _debris,
    "rules": _rules,
    "shell": _with_accounts(_shell),
    "password": _with_accounts(linux_accounts.lock_password),
    "groups": _with_accounts(linux_accounts.join_groups),
    "subids": _with_accounts(linux_accounts.add_subids),
    "folder": _folder,
    "keys": _keys,
    "attach": _attach,
    "config": _config,
    "leftovers": _leftovers,
    "start": _start,
    "stop": _stop,
    "port": _port,
}
