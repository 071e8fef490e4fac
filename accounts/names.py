"""What a person's name may look like: it is also the name of a Linux account on every server."""

import re

MAX_LENGTH = 32
PATTERN = r"^[a-z_][a-z0-9_-]{0,31}\Z"  # $ would allow a line break at the end
RULE = "up to 32 lower-case letters, digits, - and _, beginning with a letter or _"

# Accounts of this project on the servers, and those that Debian and Ubuntu create.
_OURS = {"root", "iam", "register", "lab-iam"}
_THEIRS = """
daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody nogroup _apt
sshd lxc lxc-dnsmasq dnsmasq messagebus polkitd systemd-network systemd-resolve systemd-timesync
systemd-coredump tss uuidd syslog landscape pollinate
"""
RESERVED = frozenset(_OURS.union(_THEIRS.split()))


class NameRefused(ValueError):
    """The text cannot be the name of a person; the message says why in one line."""


def clean(text: str) -> str:
    """The canonical name: `ALICE` is `alice`. Raises NameRefused if it is not a valid name of a Linux account."""
    if not text.isascii() or len(text) > MAX_LENGTH:
        raise NameRefused(f"This is not a name: use {RULE}.")
    name = text.lower()
    if re.match(PATTERN, name) is None or name in RESERVED:
        raise NameRefused(f"This is not a name: use {RULE}.")
    return name
