"""SSH public keys: judged once more on the host, and rendered into authorized_keys lines.

Sources: RFC 4253 section 6.6 (ssh-rsa), RFC 5656 section 3.1 (ecdsa), RFC 8709 section 4 (ed25519),
OpenSSH's PROTOCOL.u2f (sk-).
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, NamedTuple

from labhost.system.names import printable

RSA_LEAST_BITS = 3072
RSA_MOST_BITS = 16384
COMMENT_MOST = 1024
BLOB_MOST = 8192
KEYS_MOST = 500
REGISTER_COMMAND = "/home/register/register.bash"

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)
_CURVES = {"nistp256": 65, "nistp384": 97, "nistp521": 133}


class BadKey(ValueError):
    """The key is not acceptable; the message is one line without the key."""


class PublicKey(NamedTuple):
    type: str
    blob: str
    comment: str = ""

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


Keys = tuple[PublicKey, ...]  # one person's, each once, in the order given


class KeyMap(dict[str, Keys]):
    """Who has which keys, by checked names. Never changed: `but` gives another one.

    What is rendered of each person is handed on, so that a change of one does not cost the work of all.
    """

    _parts: dict[str, str] | None = None  # of the canonical JSON
    _lines: dict[str, str] | None = None  # of `register`'s file

    def but(self, changes: Mapping[str, Keys | None]) -> "KeyMap":
        """With these people's keys instead; None: she has none any more."""
        new = KeyMap(self)
        if self._parts is not None:
            new._parts = dict(self._parts)
        if self._lines is not None:
            new._lines = dict(self._lines)
        for name, keys in changes.items():
            _put(new, name, keys)
            _put(new._parts, name, None if keys is None else _part(name, keys))
            _put(new._lines, name, None if keys is None else _register_lines(name, keys))
        return new

    def canonical(self) -> str:
        """The canonical JSON over which both sides compute the digest."""
        if self._parts is None:
            self._parts = {name: _part(name, keys) for name, keys in self.items()}
        return "{" + ",".join(map(self._parts.__getitem__, sorted(self))) + "}"

    def render_register(self) -> str:
        """`register`'s file: each key proves one name."""
        if self._lines is None:
            self._lines = {name: _register_lines(name, keys) for name, keys in self.items()}
        return "".join(map(self._lines.__getitem__, sorted(self)))


def _put(into: dict[str, Any] | None, name: str, value: object) -> None:
    if into is None:
        return
    if value is None:
        into.pop(name, None)
    else:
        into[name] = value


def _part(name: str, keys: Keys) -> str:
    return f'"{name}":[{",".join(map(_canonical, keys))}]'


def _canonical(key: PublicKey) -> str:
    return f'{{"blob":{_quoted(key.blob)},"comment":{_quoted(key.comment)},"type":{_quoted(key.type)}}}'


def digest_of(users: object) -> str:
    """SHA-256 over the canonical JSON of a users map, as both sides compute it."""
    text = json.dumps(users, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class _Wire:
    """Reads the length-prefixed fields of a key blob."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def string(self) -> bytes:
        if len(self._rest) < 4:
            raise BadKey("the key is cut short")
        size = int.from_bytes(self._rest[:4], "big")
        if size > len(self._rest) - 4:
            raise BadKey("the key is cut short")
        field, self._rest = self._rest[4 : 4 + size], self._rest[4 + size :]
        return field

    def number(self) -> int:
        field = self.string()
        if not field or field[0] & 0x80 or (field[0] == 0 and not (len(field) > 1 and field[1] & 0x80)):
            raise BadKey("a number in the key is not written as RFC 4251 says")
        return int.from_bytes(field, "big")

    def end(self) -> None:
        if self._rest:
            raise BadKey("there are bytes after the key")


def _ed25519(wire: _Wire) -> None:
    if len(wire.string()) != 32:
        raise BadKey("an ed25519 key has 32 bytes")


def _ecdsa(curve: str, wire: _Wire) -> None:
    if wire.string() != curve.encode():
        raise BadKey("the curve in the key differs from its type")
    point = wire.string()
    if len(point) != _CURVES[curve] or point[0] != 4:
        raise BadKey("the point of the ecdsa key is not valid")


def _application(wire: _Wire) -> None:
    if not 1 <= len(wire.string()) <= 1024:
        raise BadKey("the application of the security key is not valid")


def _rsa(wire: _Wire) -> None:
    exponent, modulus = wire.number(), wire.number()
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > 64 or modulus % 2 == 0:
        raise BadKey("the numbers of the RSA key are not valid")
    if not RSA_LEAST_BITS <= modulus.bit_length() <= RSA_MOST_BITS:
        raise BadKey(f"the RSA key has {modulus.bit_length()} bits; at least {RSA_LEAST_BITS} are needed")


def _fields(kind: str, wire: _Wire) -> None:
    if kind in ("ssh-ed25519", "sk-ssh-ed25519@openssh.com"):
        _ed25519(wire)
    elif kind == "ssh-rsa":
        _rsa(wire)
    elif kind == "sk-ecdsa-sha2-nistp256@openssh.com":
        _ecdsa("nistp256", wire)
    elif kind in ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"):
        _ecdsa(kind.removeprefix("ecdsa-sha2-"), wire)
    else:
        raise BadKey(f"the key type {printable(kind, 40)!r} is not allowed")
    if kind.startswith("sk-"):
        _application(wire)


def check_key(kind: object, blob: object, comment: object = "") -> PublicKey:
    """PublicKey of these three texts, or BadKey."""
    if not isinstance(kind, str) or not isinstance(blob, str) or not isinstance(comment, str):
        raise BadKey("type, blob and comment must be texts")
    if len(comment) > COMMENT_MOST or not comment.isprintable():
        raise BadKey("the comment is too long or not printable")
    if len(blob) > BLOB_MOST or not _BASE64.fullmatch(blob):
        raise BadKey("the key is not base64")
    try:
        data = base64.b64decode(blob, validate=True)
    except binascii.Error as error:
        raise BadKey("the key is not base64") from error
    if base64.b64encode(data).decode() != blob:
        raise BadKey("the key is not canonical base64")
    wire = _Wire(data)
    if wire.string() != kind.encode("utf-8", "replace"):
        raise BadKey("the type differs from the one in the key")
    _fields(kind, wire)
    wire.end()
    return PublicKey(kind, blob, comment)


def check_entry(entry: object) -> PublicKey:
    """PublicKey of one object of a request: exactly type, blob and comment."""
    if not isinstance(entry, dict) or not {"type", "blob"} <= set(entry) <= {"type", "blob", "comment"}:
        raise BadKey("a key must have type, blob and comment, and nothing else")
    return check_key(entry["type"], entry["blob"], entry.get("comment", ""))


def check_entries(entries: object) -> Keys:
    """The keys of one person, each once, in the order given; BadKey if any is bad or there are too many."""
    if not isinstance(entries, list):
        raise BadKey("the keys of a person must be a list")
    if len(entries) > KEYS_MOST:
        raise BadKey(f"{len(entries)} keys are too many; at most {KEYS_MOST}")
    unique: dict[str, PublicKey] = {}
    for entry in entries:
        key = check_entry(entry)
        unique.setdefault(key.fingerprint, key)
    return tuple(unique.values())


def check_lines(text: str) -> Keys:
    """The keys of `type blob comment` lines, as the portal's plain-text page gives them."""
    entries = []
    for line in text.splitlines():
        words = line.split(" ", 2)
        if len(words) < 2:
            raise BadKey("a line is not `type blob comment`")
        entries.append({"type": words[0], "blob": words[1], "comment": words[2] if len(words) > 2 else ""})
    return check_entries(entries)


def as_entry(key: PublicKey) -> dict[str, str]:
    return {"type": key.type, "blob": key.blob, "comment": key.comment}


def render_host(keys: Iterable[PublicKey]) -> str:
    """A person's account on the host: a terminal and the login shell, nothing else."""
    return "".join(f"restrict,pty {key.type} {key.blob}\n" for key in keys)


def render_container(keys: Iterable[PublicKey]) -> str:
    return "".join(f"{key.type} {key.blob} {key.comment}".rstrip(" ") + "\n" for key in keys)


def _register_lines(name: str, keys: Keys) -> str:
    return "".join(f'restrict,command="{REGISTER_COMMAND} {name}" {key.type} {key.blob}\n' for key in keys)


def render_iam(key: PublicKey) -> str:
    return f"restrict {key.type} {key.blob} lab-iam\n"
