"""The outcome of a verb as an answer of the protocol, or as one line for a person."""

import json
import os
import pwd
import sys
from typing import Any

from labhost.errors import LabhostError, coded
from labhost.protocol.frame import VERSION
from labhost.system import log

Request = dict[str, Any]
Answer = dict[str, Any]


def refusal(error: Exception, version: int = VERSION) -> Answer:
    shown = to_refusal(error)
    return {"version": version, "ok": False, "error": {"code": shown.code, **shown.as_json()}}


def write_answer(answer: Answer) -> bool:
    """Write one line to standard output; False if nobody reads it."""
    try:
        sys.stdout.write(json.dumps(answer, separators=(",", ":")) + "\n")
        sys.stdout.flush()
    except OSError:
        return False
    return True


def to_refusal(error: Exception) -> LabhostError:
    """The refusal to show, logged once. The place of an unexpected error is only logged."""
    if isinstance(error, LabhostError | OSError):
        code = f"{error.code}: " if isinstance(error, LabhostError) else ""
        log.write(f"{_who()}: {code}{error}", warning=True)
        return coded(error)
    import traceback  # only now: each start of set-keys would pay for it

    place = traceback.extract_tb(error.__traceback__)[-1]
    log.write(f"{_who()}: {type(error).__name__} at {place.filename}:{place.lineno}", warning=True)
    return LabhostError("an unexpected error; ask the lab's staff to look at the server's log", reason="unexpected")


def _who() -> str:
    try:
        return pwd.getpwuid(int(os.environ.get("SUDO_UID", "0"))).pw_name
    except (KeyError, ValueError):
        return "somebody"
