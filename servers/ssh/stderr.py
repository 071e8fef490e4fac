"""Standard error of a program on a server, as clean lines."""

from collections.abc import Callable

from servers import protocol

MAX_LINES = 5000
TAIL = 3


class StderrReader:
    """Splits bytes of standard error into clean lines and passes each to `on_line` as soon as it is complete."""

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self._on_line, self._rest, self._count = on_line, b"", 0
        self._last: list[str] = []

    @property
    def tail(self) -> str:
        return " / ".join(self._last)

    def feed(self, data: bytes) -> None:
        *whole, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: protocol.MAX_TEXT * 4]
        for line in whole:
            self._take(line)

    def end(self) -> None:
        if self._rest:
            self._take(self._rest)

    def _take(self, line: bytes) -> None:
        text = protocol.clean(line.decode("utf-8", "replace").rstrip("\r"))
        if not text or self._count >= MAX_LINES:
            return
        self._count += 1
        self._last = [*self._last[1 - TAIL :], text]
        if self._on_line is not None:
            self._on_line(text)
