"""Expected failures. Each class has a code of the protocol, each message a reason."""

import errno
from typing import Any

PARAM_MOST = 200  # characters of a text


class LabhostError(Exception):
    """An expected failure. The text is one English line for people on this server that says what to do.

    `code` is the kind, on which programs decide. `reason` names the message and `params` (texts and numbers) are its
    details: the portal gets these two and makes its own text from them. See docs/protocol.md.
    """

    code = "failed"

    def __init__(self, text: str, *, reason: str = "", **params: str | int) -> None:
        super().__init__(text)
        self.reason, self.params = reason or self.code, params

    def as_json(self) -> dict[str, Any]:
        """The message as it travels."""
        short = {name: value[:PARAM_MOST] if isinstance(value, str) else value for name, value in self.params.items()}
        return {"reason": self.reason, "params": short}


class BadFrame(LabhostError):
    code = "bad_frame"


class BadRequest(LabhostError):
    code = "bad_request"


class StaleRevision(LabhostError):
    code = "stale_revision"


class OtherHistory(LabhostError):
    code = "other_history"


class OtherBase(LabhostError):
    code = "other_base"


class Busy(LabhostError):
    code = "busy"


class NotRegistered(LabhostError):
    code = "not_registered"


class Refused(LabhostError):
    code = "refused"


class PortalUnavailable(LabhostError):
    code = "portal_unavailable"


def coded(error: LabhostError | OSError) -> LabhostError:
    """The error with a reason. The text of an OSError leaves the path out, which is for staff."""
    if isinstance(error, LabhostError):
        return error
    what = error.strerror or "input or output error"
    text = f"{what}; ask the lab's staff to look at the server's log"
    if error.errno == errno.EDQUOT:
        return LabhostError(f"{what}: delete files in the container", reason="disk_limit_reached")
    if error.errno == errno.ENOSPC:
        full = "the disk is full; ask the lab's staff to free some space"
        return LabhostError(full, reason="disk_full")
    return LabhostError(text, reason="os_error", path=str(error.filename2 or error.filename or ""), detail=what)
