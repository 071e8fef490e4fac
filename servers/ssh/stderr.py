"""What a far program says on standard error, for people."""

from collections.abc import Callable

from servers import protocol

MAX_LINES = 5000
TAIL = 3


class StderrReader:
    """Bytes of standard error as clean lines, each given to `tell` as soon as it is whole."""

    def __init__(self, tell: Callable[[str], None] | None) -> None:
        self._tell, self._rest, self._count = tell, b"", 0
        self.tail: list[str] = []

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
        self.tail = [*self.tail[1 - TAIL :], text]
        if self._tell is not None:
            self._tell(text)
