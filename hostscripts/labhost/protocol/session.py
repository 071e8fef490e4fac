"""set-keys as a session: framed requests one after another, one line of JSON for each.

The portal keeps it open, so that a change needs no new process. It ends with its input, after a broken frame, when no
request came for IDLE_SECONDS, and between two requests when a newer session needs its seat (SIGTERM).
"""

import os
import resource
import signal
import sys
from collections.abc import Callable

from labhost.errors import BadFrame, BadRequest, LabhostError
from labhost.host import config
from labhost.keys import set_keys
from labhost.protocol import answers, seats
from labhost.protocol.answers import Answer, Request
from labhost.protocol.frame import SECONDS, VERSION, Frames, no_request

IDLE_SECONDS = 900.0
REQUEST_SECONDS = 300  # then SIGALRM ends the process, whatever hangs
MEMORY_MOST = 256 << 20  # bytes of data; 10,000 people need 60 to 100 MB


def main() -> int:
    """What set_authorized_keys.py runs; its exit status is that of the last answer."""
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a connection that goes away does not stop a write
    if os.geteuid() != 0:
        sys.stderr.write("labhost must run as root\n")
        return 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MOST, MEMORY_MOST))
    memory = set_keys.Memory()
    try:
        with seats.hold(seats.SESSIONS):
            code = serve(0, lambda request: set_keys.set_keys(config.load(), request, memory), end_of_seat())
    except LabhostError as error:
        answers.write_answer(answers.refusal(error))
        code = 1
    memory.end()
    os._exit(code)  # without closing the database, see `end`


def end_of_seat() -> int:
    """A file descriptor that can be read once a newer session has asked this one to end."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    return reader


def serve(fd: int, work: Callable[[Request], Answer], stop: int | None = None) -> int:
    """Answer until the input ends, or `stop` can be read; 0 if the last request was done completely."""
    frames, code = Frames(fd, stop), None
    while True:
        signal.alarm(int(IDLE_SECONDS) + REQUEST_SECONDS)
        answer, goes_on = _answer_next(frames, work, is_first=code is None)
        if answer is None and code is not None:
            return code
        if not answers.write_answer(answer or answers.refusal(no_request())) or not goes_on:
            return 1
        code = 0 if answer and answer["ok"] else 1


def _answer_next(frames: Frames, work: Callable[[Request], Answer], *, is_first: bool) -> tuple[Answer | None, bool]:
    """The answer to the next request, None without one, and whether the session goes on. Keeps nothing of it."""
    version = VERSION
    try:
        request = frames.next(idle=SECONDS if is_first else IDLE_SECONDS)
        if request is None:
            return None, False
        signal.alarm(REQUEST_SECONDS)
        version = request["version"]
        return {**work(request), "version": version}, True
    except MemoryError:
        text = f"the request needs more than {MEMORY_MOST >> 20} MB of memory"
        return answers.refusal(BadRequest(text, reason="request_too_large", most=MEMORY_MOST >> 20), version), False
    except Exception as error:
        goes_on = isinstance(error, (LabhostError, OSError)) and not isinstance(error, BadFrame)
        return answers.refusal(error, version), goes_on
