"""SSH public keys: checked again on the host, and rendered into authorized_keys lines.

Sources: RFC 4253 section 6.6 (ssh-rsa), RFC 5656 section 3.1 (ecdsa), RFC 8709 section 4 (ed25519),
OpenSSH's PROTOCOL.u2f (sk-).
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, NamedTuple

from labhost.errors import LabhostError
from labhost.system import printable

RSA_LEAST_BITS = 3072
RSA_MOST_BITS = 16384
COMMENT_MOST = 1024
BLOB_MOST = 8192
KEYS_MOST = 500
REGISTER_COMMAND = "/home/register/register.bash"

# Control characters, line breaks and surrogates: a fixed list, since each Python knows other printable characters.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)
_canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_CURVES = {"nistp256": 65, "nistp384": 97, "nistp521": 133}


class BadKey(LabhostError):
    """A key, or one person's list of keys, is not acceptable. The text does not contain the key."""

    code = "refused"

    def __init__(self, text: str, *, reason: str = "key_malformed", **params: str | int) -> None:
        super().__init__(text, reason=reason, **params)


class PublicKey(NamedTuple):
    type: str
    blob: str
    comment: str = ""

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


Keys = tuple[PublicKey, ...]  # of one person, without duplicates, in the order given
RefusedKeys = dict[str, BadKey]  # of one person: blob ("" for an entry without one) -> why the key is not applied


class KeyMap(dict[str, Keys]):
    """The keys of everybody, by checked names. Immutable: `with_changes` returns another map.

    The rendered text of each person is passed on, so that a change of one person does not render everybody again.
    """

    _parts: dict[str, str] | None = None  # name -> canonical JSON
    _lines: dict[str, str] | None = None  # name -> lines of `register`'s file

    def with_changes(self, changes: Mapping[str, Keys | None]) -> "KeyMap":
        """A map in which these people have other keys; None: no longer in the map."""
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
        """The canonical JSON of which both sides compute the digest."""
        if self._parts is None:
            self._parts = {name: _part(name, keys) for name, keys in self.items()}
        return "{" + ",".join(map(self._parts.__getitem__, sorted(self))) + "}"

    def render_register(self) -> str:
        """`register`'s authorized_keys: the key that is used proves the name."""
        if self._lines is None:
            self._lines = {name: _register_lines(name, keys) for name, keys in self.items()}
        return "".join(map(self._lines.__getitem__, sorted(self)))

    def fingerprints(self) -> dict[str, list[str]]:
        return {name: [key.fingerprint for key in keys] for name, keys in self.items() if keys}


def _put(into: dict[str, Any] | None, name: str, value: object) -> None:
    if into is not None and value is None:
        into.pop(name, None)
    elif into is not None:
        into[name] = value


def _part(name: str, keys: Keys) -> str:
    return f'"{name}":{canonical_keys(keys)}'


def canonical_keys(keys: Keys) -> str:
    """The canonical JSON of one person's keys."""
    return f"[{','.join(map(_canonical, keys))}]"


def _canonical(key: PublicKey) -> str:
    return f'{{"blob":{_quoted(key.blob)},"comment":{_quoted(key.comment)},"type":{_quoted(key.type)}}}'


def digest_of(users: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a users map, as the portal computes it; one person at a time to save memory."""
    whole, comma = hashlib.sha256(b"{"), ""
    for name in sorted(users):
        whole.update(f"{comma}{_quoted(name)}:{_canonical_json.encode(users[name])}".encode("ascii"))
        comma = ","
    whole.update(b"}")
    return whole.hexdigest()


class _Wire:
    """Reads the length-prefixed fields of a key blob."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def string(self) -> bytes:
        size = int.from_bytes(self._rest[:4], "big")
        if size > len(self._rest) - 4:  # also without the four bytes of a length
            raise BadKey("the key is cut short")
        field, self._rest = self._rest[4 : 4 + size], self._rest[4 + size :]
        return field

    def number(self) -> int:
        field = self.string()
        if not field or field[0] & 0x80 or (field[0] == 0 and not (len(field) > 1 and field[1] & 0x80)):
            raise BadKey("a number in the key is not encoded as in RFC 4251")
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
        bits = modulus.bit_length()
        text = f"the RSA key has {bits} bits; {RSA_LEAST_BITS} to {RSA_MOST_BITS} are allowed"
        raise BadKey(text, reason="key_size", bits=bits, least=RSA_LEAST_BITS, most=RSA_MOST_BITS)


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
        name = printable(kind, 40)
        raise BadKey(f"the key type {name!r} is not allowed", reason="key_type", type=name)
    if kind.startswith("sk-"):
        _application(wire)


def check_key(kind: object, blob: object, comment: object = "") -> PublicKey:
    """PublicKey of these three texts, or BadKey. Any comment is accepted: it is made printable where it is written."""
    if not isinstance(kind, str) or not isinstance(blob, str) or not isinstance(comment, str):
        raise BadKey("type, blob and comment must be texts", reason="key_fields")
    try:
        data = base64.b64decode(blob, validate=True) if len(blob) <= BLOB_MOST and _BASE64.fullmatch(blob) else b""
    except binascii.Error:
        data = b""
    if not data:
        raise BadKey("the key is not base64")
    if base64.b64encode(data).decode() != blob:
        raise BadKey("the key is not canonical base64")
    wire = _Wire(data)
    if wire.string() != kind.encode("utf-8", "replace"):
        raise BadKey("the type differs from the one in the key")
    _fields(kind, wire)
    wire.end()
    return PublicKey(kind, blob, comment)


def check_entry(entry: object) -> PublicKey:
    """PublicKey of one object of a request. It has no other fields: the digest covers them all."""
    if not isinstance(entry, dict) or not {"type", "blob"} <= set(entry) <= {"type", "blob", "comment"}:
        raise BadKey("a key must have type, blob and comment, and nothing else", reason="key_fields")
    return check_key(entry["type"], entry["blob"], entry.get("comment", ""))


def judge_entries(entries: object) -> tuple[Keys, RefusedKeys]:
    """The acceptable keys of one person and the others: a bad key costs no other key. BadKey if this is no list."""
    if not isinstance(entries, list):
        raise BadKey("the keys of a person must be a list", reason="keys_no_list")
    keys: dict[str, PublicKey] = {}
    refused: RefusedKeys = {}
    for entry in entries:
        try:
            key = check_entry(entry)
            if len(keys) == KEYS_MOST and key.blob not in keys:
                text = f"{len(entries)} keys are too many; at most {KEYS_MOST} are allowed"
                raise BadKey(text, reason="keys_too_many", count=len(entries), most=KEYS_MOST)
            keys.setdefault(key.blob, key)
        except BadKey as error:
            blob = entry.get("blob") if isinstance(entry, dict) else None
            if len(refused) < KEYS_MOST:
                refused.setdefault(blob if isinstance(blob, str) else "", error)
    return tuple(keys.values()), refused


def judge_lines(text: str) -> tuple[Keys, RefusedKeys]:
    """The same of lines `type blob comment`, as the portal's plain-text page has them."""
    words = [line.split(" ", 2) for line in text.split("\n") if line]
    return judge_entries([dict(zip(("type", "blob", "comment"), some, strict=False)) for some in words])


def fingerprint_of(blob: str) -> str:
    """As ssh-keygen shows it, also of a key that is not acceptable; "" if there is none."""
    with suppress(ValueError):
        return PublicKey("", blob).fingerprint if blob else ""
    return ""


def as_entry(key: PublicKey) -> dict[str, str]:
    return {"type": key.type, "blob": key.blob, "comment": key.comment}


def render_host(keys: Iterable[PublicKey]) -> str:
    """For a host account: a terminal and the login shell, no forwarding."""
    return "".join(f"restrict,pty {key.type} {key.blob}\n" for key in keys)


def render_container(keys: Iterable[PublicKey]) -> str:
    return "".join(f"{key.type} {key.blob} {_printable(key.comment)}".rstrip(" ") + "\n" for key in keys)


def _printable(comment: str) -> str:
    return _UNPRINTABLE.sub("?", comment[:COMMENT_MOST])


def _register_lines(name: str, keys: Keys) -> str:
    return "".join(f'restrict,command="{REGISTER_COMMAND} {name}" {key.type} {key.blob}\n' for key in keys)


def render_iam(key: PublicKey) -> str:
    return f"restrict {key.type} {key.blob} lab-iam\n"
