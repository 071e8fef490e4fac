"""What a push did for each person, and the answer of the protocol."""

from dataclasses import dataclass, field
from typing import Any

from labhost.errors import LabhostError, coded
from labhost.keys.applied_keys import Applied
from labhost.keys.public_keys import BadKey, RefusedKeys, fingerprint_of


@dataclass
class Outcome:
    """Of one person. `refused`: their keys that are not applied, by blob."""

    host: str = "absent"
    container: str = "absent"
    error: LabhostError | None = None  # the first one
    refused: RefusedKeys = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return "failed" in (self.host, self.container)

    def fail(self, error: LabhostError | OSError, *places: str) -> None:
        for place in places:
            setattr(self, place, "failed")
        self.error = self.error or coded(error)

    def as_json(self) -> dict[str, Any]:
        refused = {fingerprint_of(blob): error for blob, error in self.refused.items()}
        error = self.error or next((_key_refused(*item) for item in refused.items()), None)
        outcome = {"host": self.host, "container": self.container, "error": error and error.as_json()}
        keys = {fingerprint: error.as_json() for fingerprint, error in refused.items()}
        return outcome | ({"refused": keys} if keys else {})


@dataclass
class Written:
    users: dict[str, Outcome] = field(default_factory=dict)
    register: str = "absent"
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    problem: LabhostError | None = None  # why the push is not on record

    def failed(self) -> list[str]:
        return sorted(name for name, outcome in self.users.items() if outcome.failed)


def answer(after: Applied, written: Written) -> dict[str, Any]:
    """The answer to a push that led to this state; partial if anything of it could not be done."""
    problem = _problem(written)
    users = {name: outcome.as_json() for name, outcome in written.users.items()}
    answer = {"ok": problem is None, "revision": after.revision, "id": after.id, "digest": after.digest}
    answer |= {"users": users, "register": written.register, "containers": written.containers}
    return answer | ({"error": {"code": "partial", **problem.as_json()}} if problem else {})


def _problem(written: Written) -> LabhostError | None:
    if written.problem:
        cause = written.problem
        text = f"the applied keys cannot be recorded: {cause}"
        return LabhostError(text, reason="keys_not_recorded", cause=cause.reason, **cause.params)
    if bad := [name for name, outcome in written.users.items() if outcome.failed or outcome.refused]:
        text = f"the keys of {len(bad)} people could not be written; see their errors"
        return LabhostError(text, reason="people_failed", count=len(bad))
    if written.register == "failed":
        return LabhostError("the keys of the register account could not be written", reason="register_failed")
    return None


def _key_refused(fingerprint: str, error: BadKey) -> LabhostError:
    text = f"the key {fingerprint} is refused: {error}"
    return LabhostError(text, reason="key_refused", fingerprint=fingerprint, cause=error.reason, **error.params)
