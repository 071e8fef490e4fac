"""A program on its own terminal, whose output is read and which gets typed input."""

import os
import pty
import select
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType


class Terminal:
    def __init__(self, argv: Sequence[str]) -> None:
        self._argv, self.seen = list(argv), ""

    def __enter__(self) -> "Terminal":
        self._outer, inner = pty.openpty()
        self.process = subprocess.Popen(
            self._argv, stdin=inner, stdout=inner, stderr=inner, start_new_session=True, close_fds=True
        )
        os.close(inner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut the connection if it is still open."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._outer)

    def wait_for(self, text: str, timeout: float = 30) -> str:
        """Wait for `text`. Returns the output since the last wait, up to and including it."""
        end = time.monotonic() + timeout
        while text not in self.seen:
            ready, _, _ = select.select([self._outer], [], [], max(0.0, end - time.monotonic()))
            piece = self._read() if ready else b""
            assert piece, f"{text!r} did not appear in {timeout:g} s or before the end, but: {self.seen[-2000:]!r}"
            self.seen += piece.decode("utf-8", "replace")
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def type(self, text: str) -> None:
        os.write(self._outer, text.encode())

    def end(self, timeout: float = 30) -> tuple[int, str]:
        """Wait for the program. Returns its exit status and the output since the last wait."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._outer], [], [], 0.2)
            piece = self._read() if ready else b""
            self.seen += piece.decode("utf-8", "replace")
            if not piece and self.process.poll() is not None:
                return self.process.returncode, self.seen
        raise AssertionError(f"it did not end in {timeout:g} s; seen: {self.seen[-2000:]!r}")

    def _read(self) -> bytes:
        try:
            return os.read(self._outer, 65536)
        except OSError:  # the other side of the terminal is gone
            return b""
