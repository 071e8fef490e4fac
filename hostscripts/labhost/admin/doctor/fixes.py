"""Fixes findings, with the same functions that set things up in the first place, under their locks."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from labhost.accounts import linux_accounts, subids, tombstones
from labhost.admin import installation
from labhost.admin.doctor.checks import Finding
from labhost.admin.doctor.inspection import folders_of
from labhost.container import autostart, lifecycle
from labhost.errors import LabhostError
from labhost.host import Host, User, locks, state_disk, user_state
from labhost.keys import applied_keys, key_files, set_keys
from labhost.people import registration, removal
from labhost.storage import drivers, quota
from labhost.system import Progress, files
from labhost.system.openat2 import closing

LOCK_SECONDS = 30.0
Fix = Callable[[Host, Finding], object]


def apply(host: Host, item: Finding) -> None:
    """LabhostError or OSError if it failed. Safe to repeat."""
    FIXES[item.fix](host, item)


def _quiet() -> Progress:
    return Progress(open(os.devnull, "w", encoding="utf-8"))


def _user(host: Host, item: Finding) -> User:
    user = user_state.load_user(host, item.name)
    if user is None:
        text = f"{item.name} has no journal any more; run labhost doctor again"
        raise LabhostError(text, reason="no_journal", name=item.name)
    return user


def _lock(host: Host, item: Finding) -> AbstractContextManager[None]:
    return locks.user(host, item.name, seconds=LOCK_SECONDS)


def _with_user(action: Callable[[Host, User], object]) -> Fix:
    """Under the person's lock."""

    def fix(host: Host, item: Finding) -> None:
        with _lock(host, item):
            action(host, _user(host, item))

    return fix


def _with_accounts(action: Callable[[Host, User], object]) -> Fix:
    def locked(host: Host, user: User) -> None:
        with locks.accounts(host):
            action(host, user)

    return _with_user(locked)


def _usernet(host: Host, item: Finding) -> None:
    with locks.accounts(host):
        user = user_state.load_user(host, item.name)
        if user is not None:
            linux_accounts.grant_bridge(host, user)
        else:
            linux_accounts.revoke_bridge(host, User(item.name))


def _keys(host: Host, item: Finding) -> None:
    with locks.keys(host):
        user = _user(host, item)
        for place in (key_files.HOST, key_files.CONTAINER):
            key_files.write(host, user, place, set_keys.current_keys(host, user))


def _register_keys(host: Host, item: Finding) -> None:
    with locks.keys(host):
        text = set_keys.register_text(host, applied_keys.load(host))
        files.write_atomic(host.paths.home / "register/.ssh/authorized_keys", text, mode=0o644)


def _folder(host: Host, item: Finding) -> None:
    if item.target not in map(str, folders_of(host, item.name)):
        raise LabhostError(f"{item.target} does not belong to labhost", reason="not_ours", path=item.target)
    path = Path(item.target)
    path.mkdir(mode=0o755, exist_ok=True)
    _make_roots(path, 0o755)


def _make_roots(path: Path, mode: int) -> None:
    with closing(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
        os.fchown(fd, 0, 0)
        os.fchmod(fd, mode)


def _permissions(host: Host, item: Finding) -> None:
    if item.target in installation.untrusted():
        _make_roots(Path(item.target), os.lstat(item.target).st_mode & 0o7755)


def _leftovers(host: Host, user: User) -> None:
    drivers.driver_of(host, user).remove_leftovers(user, linux_accounts.account_of(host, user))


def _attach(host: Host, user: User) -> None:
    drivers.driver_of(host, user).attach(user, linux_accounts.account_of(host, user))


def _quota(host: Host, user: User) -> None:
    quota.attach(host, user)
    quota.apply(host, user)


def _port(host: Host, item: Finding) -> None:
    with _lock(host, item):
        user, port = _user(host, item), int(item.target)
        if holder := user_state.holder_of_port(host, port, user):
            text = f"port {port} belongs to {holder} on this server"
            raise LabhostError(text, reason="port_taken", port=port, name=holder)
        user.port = port
        user_state.save_user(host, user)
    lifecycle.apply_rules(host)


def _adopt(host: Host, item: Finding) -> None:
    """A new journal for an account that labhost created; its registration then repeats every step."""
    with _lock(host, item):
        file = host.paths.state / "users" / f"{item.name}.json"
        if file.exists():
            os.rename(file, file.with_name(f"{item.name}.damaged"))
        found = linux_accounts.passwd(item.name)
        if found is None:
            return
        own = [block for block in subids.parse(files.read_text(host.paths.subuid) or "") if block.owner == item.name]
        user = User(item.name, found.pw_uid, found.pw_gid, "created", subuid=own[0].start if own else 0)
        linux_accounts.refuse_unmanaged(host, item.name, user)
        user.steps = ["clone"] if drivers.driver_of(host, user).exists(user) else []
        user_state.save_user(host, user)
    registration.register(host, item.name, _quiet())


def _stop(host: Host, item: Finding) -> None:
    user = _user(host, item)
    if user.desired_state != "running":
        lifecycle.stop(host, user, _quiet())


FIXES: Mapping[str, Fix] = {
    "permissions": _permissions,
    "adopt": _adopt,
    "register": lambda host, item: registration.register(host, item.name, _quiet()),
    "remove": lambda host, item: removal.remove(host, item.name, _quiet()),
    "usernet": _usernet,
    "register_keys": _register_keys,
    "removed_files": lambda host, _: _make_roots(host.paths.home / tombstones.FOLDER, 0o700),
    "temporary_file": lambda _, item: Path(item.target).unlink(missing_ok=True),
    "state_image": lambda host, _: state_disk.keep_allocated(host.paths.state),
    "bridges": lambda host, _: lifecycle.apply_bridges(host),
    "rules": lambda host, _: lifecycle.apply_rules(host),
    "shell": _with_accounts(linux_accounts.set_login_shell),
    "password": _with_accounts(linux_accounts.lock_password),
    "groups": _with_accounts(linux_accounts.join_groups),
    "subids": _with_accounts(linux_accounts.add_subids),
    "folder": _folder,
    "keys": _keys,
    "attach": _with_user(_attach),
    "quota": _with_user(_quota),
    "config": _with_user(lifecycle.write_config),
    "leftovers": _with_user(_leftovers),
    "start": lambda host, item: autostart.start_one(host, item.name, _quiet()),
    "stop": _stop,
    "port": _port,
}
