"""The host protocol: requests are built and framed here, and answers are judged as an enemy's.

Whatever a host says may come from somebody who took it over: sizes are bounded, types are checked, and every
text is cut and made printable before it is stored or shown.
"""

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

from accounts import names

VERSION = 1
KEYS_VERSION = 2  # of set-keys, which tells whose the keys are since then: an older host refuses it
MAX_REQUEST = 64 * 1024 * 1024
MAX_ANSWER = 32 * 1024 * 1024
MAX_TEXT = 300
MAX_PARAMS = 8
STATUS, SET_KEYS, REGISTER, REMOVE, SUSPEND = "status", "set-keys", "register", "remove", "suspend"
CODES = frozenset(
    {"bad_frame", "bad_request", "stale_revision", "other_base", "busy", "partial", "not_registered", "refused"}
    | {"portal_unavailable", "failed"}
)
OUTCOMES = frozenset({"written", "unchanged", "absent", "failed"})
CONTAINER_STATES = frozenset({"running", "stopped", "registering", "broken", "unknown"})


_SLUG = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class Message:
    """A reason (a slug) and what it is about. Rows store this; messages.py makes the text where it is shown."""

    reason: str
    params: Mapping[str, str | int] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.reason, frozenset(self.params.items())))

    def as_json(self) -> dict[str, Any]:
        return {"reason": self.reason, "params": dict(self.params)}

    @classmethod
    def from_json(cls, value: object) -> "Message | None":
        """None for anything that is no message. Params that do not fit are left out."""
        if not isinstance(value, dict) or not _is_slug(value.get("reason")):
            return None
        params = value.get("params")
        pairs = params.items() if isinstance(params, dict) else ()
        fitting = [(name, item if isinstance(item, int) else clean(item)) for name, item in pairs if _fits(name, item)]
        return cls(value["reason"], dict(fitting[:MAX_PARAMS]))


def _is_slug(text: object) -> bool:
    return isinstance(text, str) and _SLUG.fullmatch(text) is not None


def _fits(name: object, value: object) -> bool:
    return _is_slug(name) and (isinstance(value, str) or (type(value) is int and abs(value) < 2**63))


class BadAnswer(ValueError):
    """The host's answer is not one of this protocol; the message says why in one line."""


class Key(Protocol):
    @property
    def type(self) -> str: ...
    @property
    def blob(self) -> str: ...
    @property
    def comment(self) -> str: ...


@dataclass(frozen=True)
class UserResult:
    """What a push did for one person: each of `host` and `container` is one of OUTCOMES."""

    host: str
    container: str
    error: Message | None = None

    @property
    def failed(self) -> bool:
        return "failed" in (self.host, self.container)

    @property
    def is_elsewhere(self) -> bool:
        """She has neither account nor container there."""
        return self.host == self.container == "absent" and not self.error

    def as_json(self) -> dict[str, Any]:
        error = self.error and self.error.as_json()
        return {"host": self.host, "container": self.container, "error": error}


@dataclass(frozen=True)
class ContainerFact:
    """`address` is "" while it is not known; `port` is 0 then."""

    state: str
    address: str = ""
    port: int = 0


@dataclass(frozen=True)
class Answer:
    """A judged answer. What the verb does not give keeps its default; `code` is "" if all was done."""

    ok: bool
    code: str = ""
    error: Message | None = None
    revision: int = 0
    digest: str = ""
    users: Mapping[str, UserResult] = field(default_factory=dict)
    containers: Mapping[str, ContainerFact] = field(default_factory=dict)
    register: str = ""
    name: str = ""
    labhost: str = ""
    driver: str = ""
    storage: str = ""

    def of_people_here(self) -> "Answer":
        """Without the people who have nothing there: of thousands, most."""
        return replace(self, users={name: result for name, result in self.users.items() if not result.is_elsewhere})


def frame(request: Mapping[str, Any]) -> bytes:
    """Header line `lab-iam 1 LENGTH SHA256HEX` and the JSON of the request; ValueError if it is too long."""
    body = json.dumps(request, separators=(",", ":")).encode()
    if len(body) > MAX_REQUEST:
        raise ValueError(f"a request of {len(body)} bytes is longer than {MAX_REQUEST}")
    return f"lab-iam {VERSION} {len(body)} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def digest(users: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a users map; the host computes the same."""
    text = json.dumps(users, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


Plain = dict[str, list[dict[str, str]]]


def plain(users: Mapping[str, Sequence[Key]]) -> Plain:
    """A users map as it travels."""
    return {
        name: [{"type": key.type, "blob": key.blob, "comment": key.comment} for key in keys]
        for name, keys in users.items()
    }


def build_set_keys(revision: int, users: Plain, ids: Mapping[str, int], final: str) -> dict[str, Any]:
    """Everybody's keys, with their digest, and the first subordinate id of each. A person who is left out has none."""
    return {"version": KEYS_VERSION, "revision": revision, "digest": final, "users": users, "ids": ids}


def build_changes(
    revision: int, final: str, base: str, users: Plain, ids: Mapping[str, int], names: Iterable[str]
) -> dict[str, Any]:
    """What `names` have now, for a host that holds the state with the digest `base`: it leads to digest `final`."""
    changes = {name: users.get(name) for name in names}
    mine = {name: ids[name] for name in changes if name in ids}
    head = {"version": KEYS_VERSION, "revision": revision, "digest": final, "base": base}
    return {**head, "changes": changes, "ids": mine}


def build_register(user: str) -> dict[str, Any]:
    return {"version": VERSION, "user": user}


def build_remove(user: str, *, purge: bool) -> dict[str, Any]:
    return {"version": VERSION, "user": user, "purge": purge}


def build_suspend(user: str) -> dict[str, Any]:
    return {"version": VERSION, "user": user}


def build_status() -> dict[str, Any]:
    return {"version": VERSION}


def clean(text: object, limit: int = MAX_TEXT) -> str:
    """One printable line of at most `limit` characters; "" for anything that is no text."""
    if not isinstance(text, str):
        return ""
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(character if character.isprintable() else "?" for character in short)


def parse_answer(data: bytes) -> Answer:
    """The Answer in what a host wrote to standard output. Raises BadAnswer."""
    value = _object(data)
    if value.get("version") != VERSION or isinstance(value["version"], bool):
        raise BadAnswer(f"it does not speak version {VERSION} of the protocol: deploy it again")
    ok = value.get("ok")
    if not isinstance(ok, bool):
        raise BadAnswer("it does not say whether it is done")
    code, error = _refusal(value.get("error")) if not ok else ("", None)
    return Answer(
        ok=ok,
        code=code,
        error=error,
        revision=_number(value.get("revision", 0), 2**53, "revision"),
        digest=_digest(value.get("digest", "")),
        users={name: _user(item) for name, item in _people(value.get("users", {}), "users")},
        containers={name: _container(item) for name, item in _people(value.get("containers", {}), "containers")},
        register=_outcome(value.get("register")) if isinstance(value.get("register"), str) else "",
        name=clean(value.get("name"), 63),
        labhost=clean(value.get("labhost"), 40),
        driver=clean(value.get("driver"), 40),
        storage=clean(value.get("storage"), 40),
    )


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_ANSWER:
        raise BadAnswer("its answer is too long")
    if not data.strip():
        raise BadAnswer("it gave no answer")
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise BadAnswer("its answer is not JSON") from None
    if not isinstance(value, dict):
        raise BadAnswer("its answer is not a JSON object")
    return value


def _refusal(error: object) -> tuple[str, Message]:
    if not isinstance(error, dict):
        raise BadAnswer("it refuses without a reason")
    code = error.get("code")
    code = code if isinstance(code, str) and code in CODES else "failed"
    return code, Message.from_json(error) or Message(code)


def _people(value: object, what: str) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(value, dict):
        raise BadAnswer(f"{what} is not an object")
    if not all(isinstance(item, dict) for item in value.values()):
        raise BadAnswer(f"{what} holds something else than objects")
    return [(name, item) for name, item in value.items() if _is_name(name)]


def _is_name(text: str) -> bool:
    try:
        return names.clean(text) == text
    except names.NameRefused:
        return False


def _user(item: dict[str, Any]) -> UserResult:
    error = Message.from_json(item.get("error")) or (
        Message("unknown") if item.get("error") not in (None, "") else None
    )
    return _result(_outcome(item.get("host")), _outcome(item.get("container")), error)


@lru_cache(maxsize=1000)
def _result(host: str, container: str, error: Message | None) -> UserResult:
    """Nearly all of thousands are alike: they are one object."""
    return UserResult(host, container, error)


def _outcome(value: object) -> str:
    if not isinstance(value, str) or value not in OUTCOMES:
        raise BadAnswer("it tells an outcome that the protocol does not have")
    return value


def _container(item: dict[str, Any]) -> ContainerFact:
    state = item.get("state")
    try:
        address = str(ipaddress.ip_address(str(item.get("address") or "")))
    except ValueError:
        address = ""
    port = item.get("port")
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        port = 0
    return ContainerFact(
        state if isinstance(state, str) and state in CONTAINER_STATES else "unknown",
        address,
        port,
    )


def _number(value: object, most: int, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise BadAnswer(f"{what} is not a number")
    return value


def _digest(value: object) -> str:
    if not isinstance(value, str) or (value and (len(value) != 64 or set(value) - set("0123456789abcdef"))):
        raise BadAnswer("digest is not a SHA-256")
    return value
