"""Names of people, and untrusted text made safe for a terminal."""

import re

from labhost.errors import Refused

NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
RESERVED = frozenset({"root", "iam", "register", "lab-iam", "nobody", "nogroup"})


def is_name(text: object) -> bool:
    return isinstance(text, str) and NAME.fullmatch(text) is not None and text not in RESERVED


def check_name(text: object) -> str:
    """The name itself; Refused if it is none."""
    if not isinstance(text, str) or not NAME.fullmatch(text):
        shown = printable(str(text), 40)
        message = f"{shown!r} is not a name: use lower-case letters, digits, _ and -, at most 32 characters"
        raise Refused(message, reason="invalid_name", name=shown)
    if text in RESERVED:
        raise Refused(f"the name {text} is reserved", reason="reserved_name", name=text)
    return text


def printable(text: str, limit: int = 200) -> str:
    """One line without control characters, for messages that contain untrusted text."""
    short = text if len(text) <= limit else text[:limit] + "..."
    return "".join(ch if ch.isprintable() else "?" for ch in short)
