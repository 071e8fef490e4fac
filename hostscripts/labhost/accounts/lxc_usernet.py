"""/etc/lxc/lxc-usernet, see lxc-usernet(5): `user type bridge count`; other lines are kept byte for byte."""

import re


def grant(text: str, name: str, bridge: str) -> str:
    """The text with exactly one line that lets `name` attach one veth to `bridge`."""
    wanted = f"{name} veth {bridge} 1"
    lines = _lines(text)
    if any(line.split() == wanted.split() for line in lines) and sum(_is_of(line, name, bridge) for line in lines) == 1:
        return text
    kept = "".join(line for line in lines if not _is_of(line, name, bridge))
    if kept and not kept.endswith("\n"):
        kept += "\n"
    return kept + wanted + "\n"


def revoke(text: str, name: str, bridge: str) -> str:
    return "".join(line for line in _lines(text) if not _is_of(line, name, bridge))


def _lines(text: str) -> list[str]:
    """Lines with their ends. Only a line feed ends one: splitlines() would cut at form feeds and more."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _is_of(line: str, name: str, bridge: str) -> bool:
    words = line.split()
    return len(words) >= 3 and words[0] == name and words[2] == bridge
