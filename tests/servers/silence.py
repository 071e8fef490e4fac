"""A listener that accepts connections and sends nothing."""

import contextlib
import socket
import threading
from typing import Self


class Silence:
    """As a context manager, at `address`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._kept: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="silence", daemon=True).start()
        return self

    @property
    def connections(self) -> int:
        return len(self._kept)

    def _accept(self) -> None:
        while True:
            try:
                self._kept.append(self._listener.accept()[0])
            except OSError:
                return

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self._kept:
            line.close()
