"""The key file of `register` on a host of the farm: its expected content, and each version that it had."""

import os
import threading
from pathlib import Path

from accounts.models import User
from accounts.services import keys
from tests.accounts.keys import as_line


def new_key(user: User) -> str:
    """Blob of a new key of the person. Nobody logs in with it, so random bytes are enough."""
    pasted = as_line("ssh-ed25519", os.urandom(32))
    return keys.add_keys(actor=user.username, user=user, pasted=pasted).added[0].blob


def expected() -> str:
    """The text of `register`'s key file, from the database."""
    people = sorted(keys.current_state().users.items())
    forced = 'restrict,command="/home/register/register.bash {}" {} {}\n'
    return "".join(forced.format(name, key.type, key.blob) for name, theirs in people for key in theirs)


class Watcher:
    """Reads a host's key file all the time and stores each version: its text and the birth time of its inode."""

    def __init__(self, path: Path) -> None:
        self._path, self.seen = path, dict[str, set[int]]()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._is_over.wait(0.002):
            try:
                with self._path.open() as file:
                    self.seen.setdefault(file.read(), set()).add(os.fstat(file.fileno()).st_mtime_ns)
            except FileNotFoundError:
                continue

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
