"""Does sudo let a group do anything without a password? Read from cvtsudoers' JSON, see cvtsudoers(1)."""

import json
from collections.abc import Iterable
from typing import Any

from labhost.errors import LabhostError
from labhost.system.processes import run


def read() -> dict[str, Any]:
    result = run(["/usr/bin/cvtsudoers", "-e", "-f", "json", "/etc/sudoers"], timeout=20)
    result.check("/etc/sudoers cannot be read")
    value = json.loads(result.out)
    if not isinstance(value, dict):
        raise LabhostError("/etc/sudoers cannot be read")
    return value


def without_password(policy: dict[str, Any], groups: Iterable[str]) -> list[str]:
    """Those of `groups` to which a rule of the policy gives commands without a password."""
    free = set()
    names = {*groups}
    for default in policy.get("Defaults", []):
        if _unauthenticated(default):
            free |= _meant(default.get("Binding") or [{"username": "ALL"}], names)
    for spec in policy.get("User_Specs", []):
        if any(_unauthenticated(command) for command in spec.get("Cmnd_Specs", [])):
            free |= _meant(spec.get("User_List", []), names)
    return sorted(free)


def _unauthenticated(item: dict[str, Any]) -> bool:
    return any(option.get("authenticate") is False for option in item.get("Options", []))


def _meant(members: Iterable[dict[str, Any]], names: set[str]) -> set[str]:
    """The groups among `names` that a user list speaks of; everybody, if it says ALL."""
    found = set()
    for member in members:
        if member.get("username") == "ALL":
            return names
        if member.get("usergroup") in names:
            found.add(str(member["usergroup"]))
    return found
