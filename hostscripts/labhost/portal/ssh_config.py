"""The ~/.ssh/config that the portal generates: known keywords with one plain word each, rendered again."""

import re

from labhost.errors import PortalUnavailable
from labhost.system import log

LINES_MOST = 2000
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,252}", re.ASCII)
_KEYWORDS = ("HostName", "Port", "User", "HostKeyAlias")
_UNKNOWN = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}", re.ASCII)
# ssh reads these in any case, and they decide to whom the lines after them apply.
_JUDGED = {"host", "match", *(keyword.lower() for keyword in _KEYWORDS)}


def check(text: str) -> str:
    """The same configuration, rendered again without keywords that a newer portal added; else PortalUnavailable."""
    lines = text.splitlines()
    if len(lines) > LINES_MOST:
        raise PortalUnavailable("the portal's .ssh/config is too long", reason="portal_ssh_config")
    return "".join(_line(line) for line in lines)


def _line(line: str) -> str:
    words = line.split()
    if not words:
        return "\n"
    if words[0].startswith("#") and len(line) <= 200 and line.isprintable():
        return " ".join(words) + "\n"
    if len(words) == 2 and _WORD.fullmatch(words[1]):
        if words[0] == "Host":
            return f"Host {words[1]}\n"
        if words[0] in _KEYWORDS and (words[0] != "Port" or _is_port(words[1])):
            return f"    {words[0]} {words[1]}\n"
    if words[0].lower() in _JUDGED or not _UNKNOWN.fullmatch(words[0]):
        raise PortalUnavailable("the portal's .ssh/config has a line that is not allowed", reason="portal_ssh_config")
    log.write(f"the portal's .ssh/config has an unknown keyword: {words[0]}; it is left out", warning=True)
    return ""


def _is_port(word: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,4}", word, re.ASCII) is not None and int(word) <= 65535
