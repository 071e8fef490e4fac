"""Containers on this server and their states."""

from collections.abc import Iterable
from typing import Any

from labhost import lxc
from labhost.accounts import linux_accounts
from labhost.host import Host, User, user_state
from labhost.storage import drivers


def inventory(
    host: Host, users: Iterable[User] | None = None, known: linux_accounts.Known = None
) -> dict[str, dict[str, Any]]:
    """State, address and port of each container, also of those being registered; of all people, or of `users`."""
    return {
        user.name: {"state": _state(host, user, known), "address": user.address, "port": user.port}
        for user in (user_state.all_users(host) if users is None else users)
    }


def _state(host: Host, user: User, known: linux_accounts.Known) -> str:
    if not user.registered:
        return "registering"
    account = linux_accounts.find_account(host, user, known)
    if account is None or not drivers.driver_of(host, user).exists(user):
        return "broken"
    return "running" if lxc.is_running(host, account) else "stopped"
