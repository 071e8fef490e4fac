"""Who has a container on this server, and what state it is in."""

import pwd
from collections.abc import Iterable, Mapping
from typing import Any

from labhost import lxc
from labhost.accounts import linux_accounts
from labhost.host import user_state
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.storage import drivers
from labhost.system.processes import Account


def inventory(
    host: Host, users: Iterable[User] | None = None, known: Mapping[str, pwd.struct_passwd] | None = None
) -> dict[str, dict[str, Any]]:
    """State, address and port of everybody (or of these) who has, or is about to have, a container here."""
    return {
        user.name: {"state": _state(host, user, known), "address": user.address, "port": user.port}
        for user in (user_state.all_users(host) if users is None else users)
    }


def _state(host: Host, user: User, known: Mapping[str, pwd.struct_passwd] | None) -> str:
    if not user.registered:
        return "registering"
    entry = linux_accounts.passwd_entry(host, user, known)
    if entry is None or not drivers.driver_of(host, user).exists(user):
        return "broken"
    account = Account(user.name, entry.pw_uid, entry.pw_gid, entry.pw_dir)
    return "running" if lxc.is_running(host, account) else "stopped"
