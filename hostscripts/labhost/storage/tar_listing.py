"""Checks the entries of an archive by tar's listing, before anything is unpacked."""

import re

LIST_COMMAND = ["/usr/bin/tar", "--list", "--verbose", "--numeric-owner", "--quoting-style=escape"]
LIST_COMMAND += ["--absolute-names", "--file=-"]
_LINE = re.compile(rb"(.)\S+ +[0-9]+/[0-9]+ +([0-9]+(?:,[0-9]+)?) [0-9-]{10,} [0-9:]+ (.*)", re.DOTALL)
_WHITEOUT = b"0,0"  # overlay(7): a file of the template that was deleted


def refusal_reason(line: bytes) -> str:
    """Why the entry of this line must not be unpacked; empty if it may."""
    match = _LINE.fullmatch(line.rstrip(b"\n"))
    if match is None:
        return "has an entry that cannot be read"
    kind, size, rest = match[1], match[2], match[3]
    if kind in b"bcCMNV" and not (kind == b"c" and size == _WHITEOUT):
        return "has a device or something else that is not a file"
    if kind == b"h":
        name, link, target = rest.partition(b" link to ")
        if not link or not _is_below(target):
            return "has a hard link to a file outside it"
    else:
        name = rest.partition(b" -> ")[0] if kind == b"l" else rest
    return "" if _is_below(name) else "has an entry outside it"


def _is_below(name: bytes) -> bool:
    return name.startswith(b"./") and b".." not in name.split(b"/")
