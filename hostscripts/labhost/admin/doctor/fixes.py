"""Fixes findings, with the same functions that set things up in the first place, under their locks."""

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
from labhost.host import user_state
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import applied_keys, key_files, set_keys
from labhost.people import registration, removal, steps
from labhost.storage import drivers
from labhost.system import files
from labhost.system.progress import Progress

LOCK_SECONDS = 30.0


def apply(host: Host, item: Finding) -> None:
    """LabhostError or OSError if it failed. Safe to repeat."""
    FIXES[item.fix](host, item)


def _quiet() -> Progress:
    return Progress(open(os.devnull, "w", encoding="utf-8"))


def _user(host: Host, item: Finding) -> User:
    user = user_state.load_user(host, item.name)
    if user is None:
        raise LabhostError(
            f"{item.name} has no journal any more; run labhost doctor again", reason="no_journal", name=item.name
        )
    return user


def _with_accounts(action: Callable[[Host, User], object]) -> Callable[[Host, Finding], None]:
    def fix(host: Host, item: Finding) -> None:
        with steps.user_lock(host, item.name, seconds=LOCK_SECONDS), steps.accounts_lock(host):
            action(host, _user(host, item))

    return fix


def _rules(host: Host, item: Finding) -> None:
    lifecycle.apply_rules(host)


def _shell(host: Host, user: User) -> None:
    (linux_accounts.set_login_shell if user.registered else linux_accounts.revoke_login_shell)(host, user)


def _usernet(host: Host, item: Finding) -> None:
    with steps.accounts_lock(host):
        user = user_state.load_user(host, item.name)
        if user is not None:
            linux_accounts.grant_bridge(host, user)
            return
        linux_accounts.revoke_bridge(host, item.name)


def _keys(host: Host, item: Finding) -> None:
    with steps.keys_lock(host):
        user = _user(host, item)
        for place in (key_files.HOST, key_files.CONTAINER):
            key_files.write(host, user, place, set_keys.current_keys(host, user))


def _register_keys(host: Host, item: Finding) -> None:
    with steps.keys_lock(host):
        text = applied_keys.load(host).users.render_register()
        files.write_atomic(host.paths.home / "register/.ssh/authorized_keys", text, mode=0o644)


def _folder(host: Host, item: Finding) -> None:
    if item.target not in map(str, folders_of(host, item.name)):
        raise LabhostError(f"{item.target} does not belong to labhost", reason="not_ours", path=item.target)
    path = Path(item.target)
    path.mkdir(mode=0o755, exist_ok=True)
    _make_roots(path, 0o755)


def _make_roots(path: Path, mode: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(fd, 0, 0)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _permissions(host: Host, item: Finding) -> None:
    path = Path(item.target)
    if str(path) not in installation.untrusted():
        return
    _make_roots(path, os.lstat(path).st_mode & 0o7755)


def _removed_files(host: Host, item: Finding) -> None:
    _make_roots(host.paths.home / tombstones.FOLDER, 0o700)


def _temporary_file(host: Host, item: Finding) -> None:
    Path(item.target).unlink(missing_ok=True)


def _leftovers(host: Host, item: Finding) -> None:
    with steps.user_lock(host, item.name, seconds=LOCK_SECONDS):
        user = _user(host, item)
        drivers.driver_of(host, user).remove_leftovers(user, linux_accounts.account_of(host, user))


def _attach(host: Host, item: Finding) -> None:
    with steps.user_lock(host, item.name, seconds=LOCK_SECONDS):
        user = _user(host, item)
        drivers.driver_of(host, user).attach(user, linux_accounts.account_of(host, user))


def _config(host: Host, item: Finding) -> None:
    with steps.user_lock(host, item.name, seconds=LOCK_SECONDS):
        lifecycle.write_config(host, _user(host, item))


def _port(host: Host, item: Finding) -> None:
    with steps.user_lock(host, item.name, seconds=LOCK_SECONDS):
        user, port = _user(host, item), int(item.target)
        holder = [other.name for other in user_state.all_users(host) if other.port == port and other.name != user.name]
        if holder:
            raise LabhostError(
                f"port {port} belongs to {holder[0]} on this server", reason="port_taken", port=port, name=holder[0]
            )
        user.port = port
        user_state.save_user(host, user)
    lifecycle.apply_rules(host)


def _adopt(host: Host, item: Finding) -> None:
    """A new journal for an account that labhost created; its registration then repeats every step."""
    with steps.user_lock(host, item.name, seconds=LOCK_SECONDS):
        file = host.paths.state / "users" / f"{item.name}.json"
        if file.exists():
            os.rename(file, file.with_name(f"{item.name}.damaged"))
        user = User(item.name)
        try:
            found = pwd.getpwnam(item.name)
        except KeyError:
            return
        user.account, user.uid, user.gid = "created", found.pw_uid, found.pw_gid
        linux_accounts.refuse_unmanaged(host, item.name, user)
        container_files = drivers.driver_of(host, user)
        user.steps = ["clone"] if container_files.exists(user) else []
        user_state.save_user(host, user)
    _register(host, item)


def _register(host: Host, item: Finding) -> None:
    registration.register(host, item.name, _quiet())


def _remove(host: Host, item: Finding) -> None:
    removal.remove(host, item.name, _quiet())


def _start(host: Host, item: Finding) -> None:
    autostart.start_one(host, item.name, _quiet())


def _stop(host: Host, item: Finding) -> None:
    user = _user(host, item)
    if user.desired_state != "running":
        lifecycle.stop(host, user, _quiet())


FIXES: Mapping[str, Callable[[Host, Finding], None]] = {
    "permissions": _permissions,
    "adopt": _adopt,
    "register": _register,
    "remove": _remove,
    "usernet": _usernet,
    "register_keys": _register_keys,
    "removed_files": _removed_files,
    "temporary_file": _temporary_file,
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
