"""How the outcome of a verb becomes an answer of the protocol, or one line for a person."""

import json
import os
import pwd
import sys
from typing import Any

from labhost.errors import LabhostError
from labhost.system import log
from labhost.system.names import printable


def refusal(error: Exception) -> dict[str, Any]:
    told = to_refusal(error)
    return {
        "version": 1,
        "ok": False,
        "error": {"code": told.code, "message": printable(str(told), 400)},
    }


def write_answer(answer: dict[str, Any]) -> bool:
    """One line on standard output; False if nobody reads it."""
    try:
        sys.stdout.write(json.dumps(answer, separators=(",", ":")) + "\n")
        sys.stdout.flush()
    except OSError:
        return False
    return True


def to_refusal(error: Exception) -> LabhostError:
    """The refusal to show, logged once. What nobody foresaw is logged with its place, and shown without."""
    if isinstance(error, LabhostError):
        log.write(f"{_who()}: {error.code}: {error}", warning=True)
        return error
    if isinstance(error, OSError):
        log.write(f"{_who()}: {error}", warning=True)
        return LabhostError(
            f"{error.strerror or 'input or output error'}; ask the lab's staff to look at the server's log"
        )
    import traceback  # only now: each start of set-keys would pay for it

    place = traceback.extract_tb(error.__traceback__)[-1]
    log.write(f"{_who()}: {type(error).__name__} at {place.filename}:{place.lineno}", warning=True)
    return LabhostError("something unforeseen happened; ask the lab's staff to look at the server's log")


def _who() -> str:
    try:
        return pwd.getpwuid(int(os.environ.get("SUDO_UID", "0"))).pw_name
    except (KeyError, ValueError):
        return "somebody"
