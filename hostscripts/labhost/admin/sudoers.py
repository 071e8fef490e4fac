"""Finds groups that sudo asks for no password, in the JSON that cvtsudoers(1) prints."""

import json
from collections.abc import Iterable
from typing import Any

from labhost.errors import LabhostError
from labhost.system import run


def read() -> dict[str, Any]:
    result = run(["/usr/bin/cvtsudoers", "-e", "-f", "json", "/etc/sudoers"], timeout=20)
    result.check("/etc/sudoers cannot be read")
    value = json.loads(result.out)
    if not isinstance(value, dict):
        raise LabhostError("/etc/sudoers cannot be read", reason="sudoers_unreadable")
    return value


def without_password(policy: dict[str, Any], groups: Iterable[str]) -> list[str]:
    """The ones of `groups` that may run commands without a password."""
    free = set()
    names = {*groups}
    for default in policy.get("Defaults", []):
        if _unauthenticated(default):
            free |= _groups_in(default.get("Binding") or [{"username": "ALL"}], names)
    for spec in policy.get("User_Specs", []):
        if any(_unauthenticated(command) for command in spec.get("Cmnd_Specs", [])):
            free |= _groups_in(spec.get("User_List", []), names)
    return sorted(free)


def _unauthenticated(item: dict[str, Any]) -> bool:
    return any(option.get("authenticate") is False for option in item.get("Options", []))


def _groups_in(user_list: Iterable[dict[str, Any]], names: set[str]) -> set[str]:
    """The groups among `names` in a user list; all of them if it has ALL."""
    found = set()
    for member in user_list:
        if member.get("username") == "ALL":
            return names
        if member.get("usergroup") in names:
            found.add(str(member["usergroup"]))
    return found
