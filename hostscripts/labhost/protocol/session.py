"""set-keys as a session: framed requests one after another, one line of JSON for each.

The portal keeps it open, so that a change costs no new process. It ends with its input, after a frame that
cannot be understood, and by itself when nothing was asked for a while.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from labhost.errors import BadFrame, LabhostError
from labhost.host import config
from labhost.keys import set_keys
from labhost.protocol import answers
from labhost.protocol.frame import SECONDS, Frames

IDLE_SECONDS = 900.0
REQUEST_SECONDS = 300  # nothing here may live for ever, whatever hangs

Work = Callable[[dict[str, Any]], dict[str, Any]]


def main() -> int:
    """What set_authorized_keys.py runs; the exit status is that of the last answer."""
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a connection that goes away does not stop a write
    if os.geteuid() != 0:
        sys.stderr.write("labhost must run as root\n")
        return 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    memory = set_keys.Memory()
    return serve(0, lambda request: set_keys.set_keys(config.load(), request, memory))


def serve(fd: int, work: Work) -> int:
    """Answer until the input ends; 0 if all was done that the last request asked for."""
    frames, code = Frames(fd), None
    while True:
        signal.alarm(int(IDLE_SECONDS) + REQUEST_SECONDS)
        goes_on = True
        try:
            request = frames.next(idle=SECONDS if code is None else IDLE_SECONDS)
            if request is None and code is not None:
                return code
            if request is None:
                raise BadFrame("there is no request; send it again")
            signal.alarm(REQUEST_SECONDS)
            answer = work(request)
        except Exception as error:
            answer = answers.refusal(error)
            goes_on = isinstance(error, (LabhostError, OSError)) and not isinstance(error, BadFrame)
        if not answers.write_answer(answer) or not goes_on:
            return 1
        code = 0 if answer["ok"] else 1
