"""Output for people: coloured on a terminal, with a line every two seconds while something takes long.

A closed output never stops the work.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from labhost.system.names import printable
from labhost.system.processes import die_with_parent

TICK = 2.0  # seconds of silence before a line reports that the work goes on
RESET = "\x1b[0m"
RED = "\x1b[31m"
COLOURS = {"warning:": "\x1b[33m", "next:": "\x1b[1m"}  # by a line's first word


class Progress:
    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream
        self._colours = stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb")

    def error(self, text: str) -> None:
        self._print(printable(text, 400), RED)

    def write(self, text: str) -> None:
        shown = printable(text, 400)
        self._print(shown, COLOURS.get(shown.partition(" ")[0], ""))

    def _print(self, shown: str, colour: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(f"{colour}{shown}{RESET}\n" if colour and self._colours else shown + "\n")
            self._stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # for what is left in the buffer
            self._stream = None

    @contextmanager
    def spinner(self, text: str) -> Iterator[None]:
        """Reports every two seconds that `text` goes on. A child process does it, and ends with this one."""
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            self._tick(text, parent)
        try:
            yield
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def _tick(self, text: str, parent: int) -> None:
        try:
            die_with_parent()
            started = time.monotonic()
            while os.getppid() == parent and self._stream is not None:
                time.sleep(TICK)
                self.write(f"  {text}: {time.monotonic() - started:.0f} s")
        finally:
            os._exit(0)
