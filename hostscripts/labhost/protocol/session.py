"""set-keys as a session: framed requests one after another, one line of JSON for each.

The portal keeps it open, so that a change needs no new process. It ends with its input, after a broken frame, and
when no request came for IDLE_SECONDS.
"""

import os
import signal
import sys
from collections.abc import Callable

from labhost.errors import BadFrame, LabhostError
from labhost.host import config
from labhost.keys import set_keys
from labhost.protocol import answers
from labhost.protocol.answers import Answer, Request
from labhost.protocol.frame import SECONDS, VERSION, Frames, no_request

IDLE_SECONDS = 900.0
REQUEST_SECONDS = 300  # then SIGALRM ends the process, whatever hangs


def main() -> int:
    """What set_authorized_keys.py runs; its exit status is that of the last answer."""
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a connection that goes away does not stop a write
    if os.geteuid() != 0:
        sys.stderr.write("labhost must run as root\n")
        return 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    memory = set_keys.Memory()
    code = serve(0, lambda request: set_keys.set_keys(config.load(), request, memory))
    memory.end()
    os._exit(code)  # without closing the database, see `end`


def serve(fd: int, work: Callable[[Request], Answer]) -> int:
    """Answer until the input ends; 0 if the last request was done completely."""
    frames, code = Frames(fd), None
    while True:
        signal.alarm(int(IDLE_SECONDS) + REQUEST_SECONDS)
        version, goes_on = VERSION, True
        try:
            request = frames.next(idle=SECONDS if code is None else IDLE_SECONDS)
            if request is None and code is not None:
                return code
            if request is None:
                raise no_request()
            signal.alarm(REQUEST_SECONDS)
            version = request["version"]
            answer = {**work(request), "version": version}
        except Exception as error:
            answer = answers.refusal(error, version)
            goes_on = isinstance(error, (LabhostError, OSError)) and not isinstance(error, BadFrame)
        if not answers.write_answer(answer) or not goes_on:
            return 1
        code = 0 if answer["ok"] else 1
