"""Destructive words ask again: a question on the person's terminal, or a word that is good once.

The word is bound to the person, the action and its object, is good for ten minutes, and any further
attempt uses it up. Only its digest is stored.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import select
import termios
import time

from labhost.errors import Refused
from labhost.host.config import Host
from labhost.system import files
from labhost.system.names import check_name, printable
from labhost.system.progress import Progress

SECONDS = 600
ANSWER_SECONDS = 120
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
LENGTH = 8


def ask(host: Host, name: str, action: str, word: str, what: str, progress: Progress) -> None:
    """Returns if the person confirmed `action` (a whole command line), else Refused.

    `what` is the sentence that tells what will be lost, `word` what she said, empty if nothing. A new word is told
    to her alone: what is raised goes to the system log as well.
    """
    if word:
        if not _use(host, name, action, word):
            raise Refused(
                f"that word is not good (any more); for a new one: ssh {host.config.server.name}-manage {action}"
            )
        return
    answer = _question(f"{what}\nType {host.config.server.name} to go on: ")
    if answer is None:
        progress.write(what)
        progress.write(
            f"to go on, within 10 minutes: ssh {host.config.server.name}-manage {action} {_give(host, name, action)}"
        )
    if answer is None or answer.strip() != host.config.server.name:
        raise Refused("not confirmed; nothing was changed")


def _give(host: Host, name: str, action: str) -> str:
    word = "".join(secrets.choice(LETTERS) for _ in range(LENGTH))
    note = {"digest": _digest(name, action, word), "until": time.time() + SECONDS}
    folder = host.paths.state / "confirm"
    folder.mkdir(mode=0o700, exist_ok=True)
    files.write_atomic(folder / check_name(name), json.dumps(note) + "\n", mode=0o600)
    return word


def _use(host: Host, name: str, action: str, word: str) -> bool:
    """True once. Renamed before it is read: of two attempts at the same time only one can see it."""
    path = host.paths.state / "confirm" / check_name(name)
    mine = path.with_name(f".{name}.{os.getpid()}")
    try:
        os.rename(path, mine)
    except FileNotFoundError:
        return False
    note = json.loads(files.read_text(mine) or "{}")
    mine.unlink()
    fresh = time.time() < note.get("until", 0) <= time.time() + SECONDS
    return hmac.compare_digest(str(note.get("digest", "")), _digest(name, action, word)) and fresh


def _digest(name: str, action: str, word: str) -> str:
    return hashlib.sha256(json.dumps([name, action, word]).encode()).hexdigest()


def _question(text: str) -> str | None:
    """One line typed on the controlling terminal; None if there is none."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with contextlib.suppress(termios.error):
            termios.tcflush(terminal, termios.TCIFLUSH)  # what was typed before the question is no answer to it
        os.write(terminal, text.replace("\n", "\r\n").encode())
        ready, _, _ = select.select([terminal], [], [], ANSWER_SECONDS)
        return printable(os.read(terminal, 256).decode("utf-8", "replace").rstrip("\r\n")) if ready else ""
    except OSError:
        return ""
    finally:
        os.close(terminal)
