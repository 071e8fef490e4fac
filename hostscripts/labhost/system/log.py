"""The system log: one line per change or error, printable, without keys or tokens."""

import syslog

from labhost.system.names import printable

_opened = False


def write(text: str, *, warning: bool = False) -> None:
    global _opened
    if not _opened:
        syslog.openlog("labhost", syslog.LOG_PID, syslog.LOG_AUTH)
        _opened = True
    syslog.syslog(syslog.LOG_WARNING if warning else syslog.LOG_INFO, printable(text, 500))
