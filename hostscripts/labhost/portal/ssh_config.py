"""The ~/.ssh/config that the portal generates: five keywords with one plain word each, rebuilt."""

import re

from labhost.errors import PortalUnavailable

LINES_MOST = 2000
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,252}", re.ASCII)
_KEYWORDS = ("HostName", "Port", "User", "HostKeyAlias")


def check(text: str) -> str:
    """The same configuration, rendered anew; PortalUnavailable if anything else stands in it."""
    lines = text.splitlines()
    if len(lines) > LINES_MOST:
        raise PortalUnavailable("the portal's .ssh/config is too long")
    return "".join(_line(line) + "\n" for line in lines)


def _line(line: str) -> str:
    words = line.split()
    if not words:
        return ""
    if words[0].startswith("#") and len(line) <= 200 and line.isprintable():
        return " ".join(words)
    if len(words) == 2 and _WORD.fullmatch(words[1]):
        if words[0] == "Host":
            return f"Host {words[1]}"
        if words[0] in _KEYWORDS and (words[0] != "Port" or _is_port(words[1])):
            return f"    {words[0]} {words[1]}"
    raise PortalUnavailable("the portal's .ssh/config holds a line that is not allowed")


def _is_port(word: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,4}", word, re.ASCII) is not None and int(word) <= 65535
