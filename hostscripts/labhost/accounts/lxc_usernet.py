"""/etc/lxc/lxc-usernet, see lxc-usernet(5): `user type bridge count`. Other lines stay byte for byte."""

import re

from labhost.network import bridges


def grant(text: str, name: str, bridge: str, shared: str) -> str:
    """The text with exactly one line of `name` for our bridges: it lets them attach one veth to `bridge`.

    Lines for `shared`, the bridge of lxc-net, are those of an earlier version.
    """
    wanted = f"{name} veth {bridge} 1"
    lines = _lines(text)
    if [line.split() for line in lines if _grants(line, name, shared)] == [wanted.split()]:
        return text
    others = revoke(text, name, shared)
    return others + ("\n" if others and not others.endswith("\n") else "") + wanted + "\n"


def revoke(text: str, name: str, shared: str) -> str:
    return "".join(line for line in _lines(text) if not _grants(line, name, shared))


def _lines(text: str) -> list[str]:
    """Lines with their line feeds; splitlines() would also split at form feeds and others."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _grants(line: str, name: str, shared: str) -> bool:
    columns = line.split()
    ours = len(columns) >= 3 and (columns[2] == shared or columns[2].startswith(bridges.PREFIX))
    return ours and columns[0] == name
