"""Checks the entries of an archive by tar's listing, before anything is unpacked."""

import re

from labhost.storage import tree

LIST_COMMAND = ["/usr/bin/tar", "--list", "--verbose", "--numeric-owner", "--quoting-style=c", "--totals"]
LIST_COMMAND += ["--absolute-names", "--file=-"]
_NAME = rb'"((?:[^"\\]|\\.)*)"'
_HEAD = rb"(.)\S+ +[0-9]+/[0-9]+ +([0-9]+(?:,[0-9]+)?) [0-9-]{10,} [0-9:]+ "
_LINE = re.compile(_HEAD + _NAME + rb"(?: (?:->|link to) " + _NAME + rb")?")
_ESCAPED = re.compile(rb"\\(?:[0-7]{3}|.)")
_WHITEOUT = b"0,0"  # overlay(7): a file of the template that was deleted


def refusal_reason(line: bytes) -> str:
    """Why the entry of this line must not, or cannot, be unpacked; empty if it may."""
    match = _LINE.fullmatch(line.rstrip(b"\n"))
    if match is None:
        return "has an entry that cannot be read"
    kind, size, name, target = match.groups()
    if kind in b"bcCMNV" and not (kind == b"c" and size == _WHITEOUT):
        problem = "has a device or something else that is not a file"
    elif kind == b"h" and not _is_below(target or b""):
        problem = "has a hard link to a file outside it"
    elif not _is_below(name):
        problem = "has an entry outside it"
    elif len(_ESCAPED.sub(b"x", name).rstrip(b"/")) > tree.PATH_MOST:
        problem = "has a path that is too long"
    else:
        return ""
    return f"{problem}: {tree.shown(name)}"


def _is_below(name: bytes) -> bool:
    return name.startswith(b"./") and b".." not in name.split(b"/")
