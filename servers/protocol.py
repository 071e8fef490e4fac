"""The host protocol: builds and frames requests, and parses answers as those of a hostile server.

Somebody may have taken the server over: sizes are bounded, types are checked, and every text is cut and made printable
before it is stored or shown.
"""

import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from accounts import names
from servers import revoked_keys
from servers.disks import Space, parse_disks
from servers.revoked_keys import RevokedKey

VERSION = 1
OLDEST = max(1, VERSION - 1)  # answers of the version before are still understood
MAX_REQUEST = 24 * 1024 * 1024
MAX_ANSWER = 32 * 1024 * 1024
MAX_TEXT, MAX_PARAMS = 300, 8
MAX_KEYS = 1000  # of one person
STATUS, SET_KEYS, REGISTER, REMOVE, SUSPEND = "status", "set-keys", "register", "remove", "suspend"
CODES = frozenset(
    {"bad_frame", "bad_request", "stale_revision", "other_base", "other_history", "busy", "partial"}
    | {"not_registered", "refused", "portal_unavailable", "failed"}
)
OUTCOMES = frozenset({"written", "unchanged", "absent", "failed"})
CONTAINER_STATES = frozenset({"running", "stopped", "registering", "broken", "unknown"})


_ID = re.compile(r"(?:[0-9a-f]{32})?", re.ASCII)
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
_SLUG = re.compile(r"[a-z][a-z0-9_]{0,63}")
Plain = dict[str, list[dict[str, str]]]  # a users map as it travels
Item = TypeVar("Item")


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
        pairs = [(name, item) for name, item in params.items() if _is_slug(name)] if isinstance(params, dict) else []
        texts = {name: clean(item) for name, item in pairs if isinstance(item, str)}
        numbers = {name: item for name, item in pairs if type(item) is int and abs(item) < 2**63}
        return cls(value["reason"], dict(list((texts | numbers).items())[:MAX_PARAMS]))


UNKNOWN = Message("unknown")


def _is_slug(text: object) -> bool:
    return isinstance(text, str) and _SLUG.fullmatch(text) is not None


class BadAnswer(ValueError):
    """The host's answer does not follow this protocol; the text says why in one line."""


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
    refused: tuple[tuple[str, Message], ...] = ()  # fingerprints of keys that the host does not apply, and why

    @property
    def failed(self) -> bool:
        return "failed" in (self.host, self.container)

    @property
    def is_elsewhere(self) -> bool:
        """The person has neither account nor container there."""
        return self.host == self.container == "absent" and not self.error

    def as_json(self) -> dict[str, Any]:
        error = self.error and self.error.as_json()
        return {"host": self.host, "container": self.container, "error": error}

    def refused_as_json(self) -> dict[str, Any]:
        return {fingerprint: message.as_json() for fingerprint, message in self.refused}


@dataclass(frozen=True)
class ContainerFact:
    """`address` is "" while it is not known; `port` is 0 then."""

    state: str
    address: str = ""
    port: int = 0


@dataclass(frozen=True)
class Answer:
    """A checked answer. Fields that the verb does not have keep their defaults; with `ok`, so do `code` and `error`.

    `id` is that of the revision. `keys`: name to fingerprints.
    """

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
    build: str = ""
    driver: str = ""
    storage: str = ""
    disks: Mapping[str, Space] = field(default_factory=dict)
    id: str = ""
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    revoked: tuple[RevokedKey, ...] | None = None  # None: the answer does not say

    def of_people_here(self) -> "Answer":
        """Without the people who have nothing there, which are most."""
        return replace(self, users={name: result for name, result in self.users.items() if not result.is_elsewhere})


def frame(request: Mapping[str, Any]) -> bytes:
    """Header line `lab-iam 1 LENGTH SHA256HEX` and the JSON of the request; ValueError if it is too long."""
    body = json.dumps(request, separators=(",", ":")).encode()
    if len(body) > MAX_REQUEST:
        raise ValueError(f"a request of {len(body)} bytes is longer than {MAX_REQUEST}")
    return f"lab-iam 1 {len(body)} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def digest(users: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a users map; the host computes the same."""
    text = json.dumps(users, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def plain(users: Mapping[str, Sequence[Key]]) -> Plain:
    return {
        name: [{"type": key.type, "blob": key.blob, "comment": key.comment} for key in keys]
        for name, keys in users.items()
    }


def build_digest(files: Mapping[str, bytes]) -> str:
    """The `build` that a host with these files of labhost (path in it -> content) reports; Python files only."""
    whole = hashlib.sha256()
    for name in sorted(name for name in files if name.endswith(".py")):
        whole.update(f"{name} {len(files[name])}\n".encode() + files[name])
    return whole.hexdigest()[:12]


def clean(text: object, limit: int = MAX_TEXT) -> str:
    """One printable line of at most `limit` characters; "" for anything that is no text."""
    if not isinstance(text, str):
        return ""
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(character if character.isprintable() else "?" for character in short)


def parse_answer(data: bytes) -> Answer:
    """The Answer in what a host wrote to standard output. Raises BadAnswer."""
    value = _object(data)
    version = _number(value.get("version"), 2**31, "version")
    if not OLDEST <= version <= VERSION:
        raise BadAnswer(f"it speaks version {version} of the protocol, not {OLDEST} to {VERSION}: deploy it again")
    ok = value.get("ok")
    if not isinstance(ok, bool):
        raise BadAnswer("ok is missing")
    code, error, given = "", None, value.get("error")
    if not ok:
        if not isinstance(given, dict):
            raise BadAnswer("it refuses without a reason")
        code = next((code for code in CODES if code == given.get("code")), "failed")
        error = Message.from_json(given) or Message(code)
    return Answer(
        ok=ok,
        code=code,
        error=error,
        revision=_number(value.get("revision", 0), 2**53, "revision"),
        digest=_digest(value.get("digest", "")),
        users={name: _user(item) for name, item in _people(value.get("users", {}), dict, "users")},
        containers={name: _container(item) for name, item in _people(value.get("containers", {}), dict, "containers")},
        register=_outcome(value.get("register")) if isinstance(value.get("register"), str) else "",
        name=clean(value.get("name"), 63),
        labhost=clean(value.get("labhost"), 40),
        build=clean(value.get("build"), 12),
        driver=clean(value.get("driver"), 40),
        storage=clean(value.get("storage"), 40),
        disks=parse_disks(value.get("disks")),
        id=_revision_id(value.get("id", "")),
        keys={name: _fingerprints(found) for name, found in _people(value.get("keys", {}), list, "keys")},
        revoked=revoked_keys.parse(value.get("revoked")),
    )


def _revision_id(value: object) -> str:
    """Raises BadAnswer."""
    if not is_revision_id(value):
        raise BadAnswer("id is not the id of a revision")
    return str(value)


def is_revision_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _fingerprints(found: list[object]) -> list[str]:
    if len(found) > MAX_KEYS or not all(isinstance(one, str) and _FINGERPRINT.fullmatch(one) for one in found):
        raise BadAnswer("keys are not fingerprints")
    return [str(one) for one in found]


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_ANSWER:
        raise BadAnswer("its answer is too long")
    if not data.strip():
        raise BadAnswer("it gave no answer")
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadAnswer("its answer is not JSON")
    return value


def _people(value: object, kind: type[Item], what: str) -> list[tuple[str, Item]]:
    if not isinstance(value, dict) or not all(isinstance(item, kind) for item in value.values()):
        raise BadAnswer(f"{what} is not an object of {kind.__name__}s")
    return [(name, item) for name, item in value.items() if _is_name(name)]


def _is_name(text: str) -> bool:
    try:
        return names.clean(text) == text
    except names.NameRefused:
        return False


def _user(item: dict[str, Any]) -> UserResult:
    error = Message.from_json(item.get("error")) or (UNKNOWN if item.get("error") is not None else None)
    return _result(_outcome(item.get("host")), _outcome(item.get("container")), error, _refused(item.get("refused")))


@lru_cache(maxsize=1000)  # nearly all results of thousands are equal: they share one object
def _result(host: str, container: str, error: Message | None, refused: tuple[tuple[str, Message], ...]) -> UserResult:
    return UserResult(host, container, error, refused)


def _refused(value: object) -> tuple[tuple[str, Message], ...]:
    pairs = value.items() if isinstance(value, dict) and len(value) <= MAX_KEYS else ()
    return tuple((name, Message.from_json(error) or UNKNOWN) for name, error in pairs if _FINGERPRINT.fullmatch(name))


def _outcome(value: object) -> str:
    if not isinstance(value, str) or value not in OUTCOMES:
        raise BadAnswer("it has an outcome that the protocol does not know")
    return value


def _container(item: dict[str, Any]) -> ContainerFact:
    state = item.get("state")
    try:
        address = str(ipaddress.ip_address(str(item.get("address") or "")))
    except ValueError:
        address = ""
    port = item.get("port")
    port = port if type(port) is int and 0 < port < 65536 else 0
    state = state if isinstance(state, str) and state in CONTAINER_STATES else "unknown"
    return ContainerFact(state, address, port)


def _number(value: object, most: int, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise BadAnswer(f"{what} is not a number")
    return value


def _digest(value: object) -> str:
    if not isinstance(value, str) or (value and (len(value) != 64 or set(value) - set("0123456789abcdef"))):
        raise BadAnswer("digest is not a SHA-256")
    return value
