"""Expected failures. Each class has a code of the protocol, each message a reason."""


class LabhostError(Exception):
    """An expected failure. The text is one English line for people on this server that says what to do.

    `code` is the kind, on which programs decide. `reason` names the message and `params` (texts and numbers) are its
    details: the portal gets these two and makes its own text from them. See docs/protocol.md.
    """

    code = "failed"

    def __init__(self, text: str, *, reason: str = "", **params: str | int) -> None:
        super().__init__(text)
        self.reason, self.params = reason or self.code, params


class BadFrame(LabhostError):
    code = "bad_frame"


class BadRequest(LabhostError):
    code = "bad_request"


class StaleRevision(LabhostError):
    code = "stale_revision"


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
