"""The system log: one line per change or error, printable, without keys or tokens."""

import syslog
from collections.abc import Collection

from labhost.system.names import printable

_opened = False


def write(text: str, *, warning: bool = False) -> None:
    global _opened
    if not _opened:
        syslog.openlog("labhost", syslog.LOG_PID, syslog.LOG_AUTH)
        _opened = True
    syslog.syslog(syslog.LOG_WARNING if warning else syslog.LOG_INFO, printable(text, 500))


def ignored(where: str, names: Collection[str]) -> None:
    """Warn that these fields of a request are from a newer portal, and ignored; at most five are named."""
    if names:
        write(f"{where}: unknown fields are ignored: {', '.join(sorted(names)[:5])}", warning=True)
