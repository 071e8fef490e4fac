"""Names of people, and the text of strangers made fit for a terminal."""

import re

from labhost.errors import Refused

NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
RESERVED = frozenset({"root", "iam", "register", "lab-iam", "nobody", "nogroup"})


def is_name(text: object) -> bool:
    return isinstance(text, str) and NAME.fullmatch(text) is not None and text not in RESERVED


def check_name(text: object) -> str:
    """The name itself, or Refused."""
    if not isinstance(text, str) or not NAME.fullmatch(text):
        raise Refused(f"{printable(str(text), 40)!r} is not a name: lower-case letters, digits, _ and -, at most 32")
    if text in RESERVED:
        raise Refused(f"{text} is reserved; it is nobody's name")
    return text


def printable(text: str, limit: int = 200) -> str:
    """One line without control characters, for messages that carry somebody else's words."""
    short = text if len(text) <= limit else text[:limit] + "..."
    return "".join(ch if ch.isprintable() else "?" for ch in short)
