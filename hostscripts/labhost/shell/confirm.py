"""Commands that destroy something ask first: a question on the person's terminal, or a confirmation code.

A code is bound to the person, the action and its object, expires after ten minutes, and is used up by any further
attempt. Only its digest is stored.
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
from labhost.host import Host
from labhost.system import Progress, check_name, printable
from labhost.system.json_files import load_object, save_object

SECONDS = 600
ANSWER_SECONDS = 120
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
LENGTH = 8


def ask(host: Host, name: str, action: str, code: str, warning: str, progress: Progress) -> None:
    """Returns if the person confirmed `action` (a whole command line), else Refused.

    `warning` says what will be lost; `code` is what the person gave, or empty. A new code is printed for the person
    and is no part of the error, which is also written to the system log.
    """
    server = host.config.server.name
    if code and _use(host, name, action, code):
        return
    if code:
        text = f"wrong or expired confirmation code; for a new one: ssh {server}-manage {action}"
        raise Refused(text, reason="bad_code")
    answer = _question(f"{warning}\nType {server} to continue: ")
    if answer is None:
        progress.write(warning)
        progress.write(f"to confirm, within 10 minutes: ssh {server}-manage {action} {_create(host, name, action)}")
    if answer is None or answer.strip() != server:
        raise Refused("not confirmed; nothing was changed", reason="not_confirmed")


def _create(host: Host, name: str, action: str) -> str:
    code = "".join(secrets.choice(LETTERS) for _ in range(LENGTH))
    note = {"digest": _digest(name, action, code), "until": time.time() + SECONDS}
    save_object(host.paths.state / "confirm" / check_name(name), note)
    return code


def _use(host: Host, name: str, action: str, code: str) -> bool:
    """True once. The file is renamed before it is read: of two attempts at the same time only one can see it."""
    path = host.paths.state / "confirm" / check_name(name)
    mine = path.with_name(f".{name}.{os.getpid()}")
    try:
        os.rename(path, mine)
    except FileNotFoundError:
        return False
    note = load_object(mine) or {}
    mine.unlink()
    fresh = time.time() < note.get("until", 0) <= time.time() + SECONDS
    return hmac.compare_digest(str(note.get("digest", "")), _digest(name, action, code)) and fresh


def _digest(name: str, action: str, code: str) -> str:
    return hashlib.sha256(json.dumps([name, action, code]).encode()).hexdigest()


def _question(text: str) -> str | None:
    """One line typed on the controlling terminal; None if there is none."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with contextlib.suppress(termios.error):
            termios.tcflush(terminal, termios.TCIFLUSH)  # what was typed before the question is no answer
        os.write(terminal, text.replace("\n", "\r\n").encode())
        ready, _, _ = select.select([terminal], [], [], ANSWER_SECONDS)
        return printable(os.read(terminal, 256).decode("utf-8", "replace").rstrip("\r\n")) if ready else ""
    except OSError:
        return ""
    finally:
        os.close(terminal)
