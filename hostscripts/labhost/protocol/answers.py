"""The outcome of a verb as an answer of the protocol, or as one line for a person."""

import json
import os
import pwd
import sys
from collections.abc import Callable
from typing import Any

from labhost.errors import LabhostError, from_os_error
from labhost.protocol.frame import VERSION
from labhost.system import log

Request = dict[str, Any]
Answer = dict[str, Any]


def of(request: Request, work: Callable[[Request], Answer]) -> Answer:
    """What `work` returns, in the version of the request."""
    return {**work(request), "version": request["version"]}


def refusal(error: Exception, version: int = VERSION) -> Answer:
    refused = to_refusal(error)
    return {"version": version, "ok": False, "error": {"code": refused.code, **refused.as_json()}}


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
    if isinstance(error, LabhostError):
        log.write(f"{_who()}: {error.code}: {error}", warning=True)
        return error
    if isinstance(error, OSError):
        log.write(f"{_who()}: {error}", warning=True)
        return from_os_error(error)
    import traceback  # only now: each start of set-keys would pay for it

    place = traceback.extract_tb(error.__traceback__)[-1]
    log.write(f"{_who()}: {type(error).__name__} at {place.filename}:{place.lineno}", warning=True)
    return LabhostError("an unexpected error; ask the lab's staff to look at the server's log", reason="unexpected")


def _who() -> str:
    try:
        return pwd.getpwuid(int(os.environ.get("SUDO_UID", "0"))).pw_name
    except (KeyError, ValueError):
        return "somebody"
