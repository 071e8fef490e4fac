"""Lines for people: coloured on a terminal, a sign of life while something takes long.

A reader that went away never stops the work.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from labhost.system.names import printable
from labhost.system.processes import die_with_parent

TICK = 2.0  # seconds of silence after which a line says that the work goes on
RESET = "\x1b[0m"
RED = "\x1b[31m"
COLOURS = {"warning:": "\x1b[33m", "next:": "\x1b[1m"}  # by a line's first word


class Progress:
    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream
        self._colours = stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb")

    def refusal(self, text: str) -> None:
        self._write(printable(text, 400), RED)

    def line(self, text: str) -> None:
        shown = printable(text, 400)
        self._write(shown, COLOURS.get(shown.partition(" ")[0], ""))

    def _write(self, shown: str, colour: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(f"{colour}{shown}{RESET}\n" if colour and self._colours else shown + "\n")
            self._stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # what is left in the buffer goes there
            self._stream = None

    @contextmanager
    def during(self, text: str) -> Iterator[None]:
        """Says every two seconds that `text` still goes on; a child does it, which never outlives this process."""
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
            began = time.monotonic()
            while os.getppid() == parent and self._stream is not None:
                time.sleep(TICK)
                self.line(f"  {text}: {time.monotonic() - began:.0f} s")
        finally:
            os._exit(0)
