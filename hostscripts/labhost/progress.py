"""Lines for people. A reader that went away never stops the work."""

import os
from typing import TextIO

from .names import printable


class Progress:
    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def line(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(printable(text, 400) + "\n")
            self._stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # what is left in the buffer goes there
            self._stream = None
