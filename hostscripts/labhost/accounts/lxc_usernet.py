"""/etc/lxc/lxc-usernet, see lxc-usernet(5): `user type bridge count`. Other lines stay byte for byte."""

import re


def grant(text: str, name: str, bridge: str) -> str:
    """The text with exactly one line that lets `name` attach one veth to `bridge`."""
    wanted = f"{name} veth {bridge} 1"
    lines = _lines(text)
    if [line.split() for line in lines if _grants(line, name, bridge)] == [wanted.split()]:
        return text
    others = revoke(text, name, bridge)
    return others + ("\n" if others and not others.endswith("\n") else "") + wanted + "\n"


def revoke(text: str, name: str, bridge: str) -> str:
    return "".join(line for line in _lines(text) if not _grants(line, name, bridge))


def _lines(text: str) -> list[str]:
    """Lines with their line feeds; splitlines() would also split at form feeds and others."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _grants(line: str, name: str, bridge: str) -> bool:
    columns = line.split()
    return len(columns) >= 3 and columns[0] == name and columns[2] == bridge
