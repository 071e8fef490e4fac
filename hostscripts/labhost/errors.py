"""Expected failures, each with its protocol code."""


class LabhostError(Exception):
    """An expected failure: `code` is one of the protocol's, the message is one line that says what to do."""

    code = "failed"


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
