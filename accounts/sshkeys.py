"""Parse pasted SSH public keys: only plain, strong public keys that sshd accepts pass.

Formats: RFC 4253 section 6.6, RFC 5656, RFC 8709 and OpenSSH's PROTOCOL.u2f; lines as in sshd(8),
AUTHORIZED_KEYS FILE FORMAT, without the options. No message ever repeats what was pasted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import unicodedata
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

MAX_PASTE = 64 * 1024  # characters; ten keys of 4096 bits take 7,500
MAX_LINES = 200
MAX_KEYS = 50
MAX_COMMENT = 200
MIN_RSA_BITS = 3072
MAX_RSA_BITS = 16384

ED25519 = "ssh-ed25519"
RSA = "ssh-rsa"
SK_ED25519 = "sk-ssh-ed25519@openssh.com"
SK_ECDSA = "sk-ecdsa-sha2-nistp256@openssh.com"
ECDSA = {f"ecdsa-sha2-{curve}": curve for curve in ("nistp256", "nistp384", "nistp521")}
TYPES = frozenset({ED25519, RSA, SK_ED25519, SK_ECDSA, *ECDSA})

HOW_TO = "Paste the one line of your .pub file; 'ssh-keygen -t ed25519' creates a good key."

_PRIVATE = re.compile(
    r"BEGIN[A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File|SSH PRIVATE KEY FILE|b3BlbnNzaC1rZXktdjE", re.IGNORECASE
)
_OTHER_FORMATS = (
    ("BEGIN SSH2 PUBLIC KEY", "RFC 4716 (PuTTY saves this)", "ssh-keygen -i -f FILE"),
    ("BEGIN RSA PUBLIC KEY", "PEM", "ssh-keygen -i -m PEM -f FILE"),
    ("BEGIN PUBLIC KEY", "PEM", "ssh-keygen -i -m PKCS8 -f FILE"),
)


class KeyRefused(ValueError):
    """Pasted text that is not accepted: `reasons` holds one line for each refused pasted line."""

    def __init__(self, *reasons: str) -> None:
        super().__init__(" ".join(reasons))
        self.reasons = reasons


class PrivateKeyPasted(KeyRefused):
    """A private key was pasted. It must not be stored, logged or shown again."""


@dataclass(frozen=True)
class PublicKey:
    """One accepted key: `type blob comment`, the blob in canonical base64."""

    type: str
    blob: str
    comment: str = ""

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -lf` prints it: SHA256 of the decoded blob in base64 without padding."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")

    @property
    def line(self) -> str:
        return f"{self.type} {self.blob} {self.comment}".rstrip()


def parse(pasted: str) -> list[PublicKey]:
    """The keys of a paste, each once. Raises KeyRefused with a reason for each of the first five bad lines."""
    if len(pasted) > MAX_PASTE:
        raise KeyRefused(f"The text is too long: paste at most {MAX_PASTE // 1024} KiB of public keys at once.")
    if _PRIVATE.search(pasted):
        raise PrivateKeyPasted(
            "This is a PRIVATE key: it must never leave your computer. Nothing was saved. If others could "
            "see it, create a new pair. Paste the public key: 'ssh-keygen -y -f FILE' or, for PuTTY, "
            "'puttygen FILE.ppk -O public-openssh' prints it."
        )
    for mark, name, command in _OTHER_FORMATS:
        if mark in pasted:
            raise KeyRefused(f"This key is in the format {name}: '{command}' prints the line to paste.")
    lines = pasted.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if len(lines) > MAX_LINES:
        raise KeyRefused(f"Too many lines: paste at most {MAX_KEYS} keys at once.")
    return _judge_all(lines)


def _judge_all(lines: list[str]) -> list[PublicKey]:
    keys: dict[str, PublicKey] = {}
    reasons = []
    for number, raw in enumerate(lines, start=1):
        line = raw.strip(" \t")
        if not line or line.startswith("#"):
            continue
        try:
            key = parse_line(line)
        except KeyRefused as refused:
            reasons.append(f"Line {number}: {refused}")
        else:
            keys.setdefault(key.blob, key)
    if reasons:
        raise KeyRefused(*reasons[:5])
    if not keys:
        raise KeyRefused(f"There is no key in this text. {HOW_TO}")
    if len(keys) > MAX_KEYS:
        raise KeyRefused(f"Too many keys: paste at most {MAX_KEYS} at once.")
    return list(keys.values())


def parse_line(line: str) -> PublicKey:
    """One key of the form `type blob [comment]`; raises KeyRefused with the reason."""
    if any(unicodedata.category(character) in _NOT_TEXT for character in line):
        raise KeyRefused("a key is one line of plain text, without control characters or line breaks in it.")
    type_, _, rest = line.partition(" ")
    if type_ not in TYPES:
        raise KeyRefused(_why_not(type_, line))
    blob, _, comment = rest.lstrip(" ").partition(" ")
    comment = " ".join(comment.split())
    if len(comment) > MAX_COMMENT:
        raise KeyRefused(f"the comment is too long: keep it within {MAX_COMMENT} characters.")
    try:
        raw = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        raise KeyRefused("the key is incomplete or changed: copy the whole line again.") from None
    if base64.b64encode(raw).decode("ascii") != blob:
        raise KeyRefused("the key is incomplete or changed: copy the whole line again.")
    _check(type_, blob, raw)
    return PublicKey(type_, blob, comment)


# Control, format (bidirectional, zero width), surrogate, private, unassigned, line and paragraph separators.
_NOT_TEXT = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _why_not(type_: str, line: str) -> str:
    if "-cert-v0" in type_:
        return "certificates are not accepted: paste the plain public key."
    if type_ in {"ssh-dss", "ssh-dsa"}:
        return "DSA keys are insecure and not accepted: create a new one with 'ssh-keygen -t ed25519'."
    if any(word in TYPES or word == "ssh-dss" for word in line.replace('"', " ").split(" ")[1:]):
        return "options before the key (command=, from=, ...) are not accepted: begin with the key type."
    return f"this is not a public key of an accepted type (ed25519, ecdsa, rsa, sk-). {HOW_TO}"


def _check(type_: str, blob: str, raw: bytes) -> None:
    """Raise KeyRefused unless `raw` is exactly one key of this type, in its canonical encoding."""
    try:
        if type_ in {SK_ED25519, SK_ECDSA}:
            _check_security_key(type_, raw)
            return
        key = serialization.load_ssh_public_key(f"{type_} {blob}".encode("ascii"))
        again = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyRefused("the key is incomplete, changed or not of the type it names: copy it again.") from None
    if again != f"{type_} {blob}".encode("ascii"):
        raise KeyRefused("the key has an unusual encoding: 'ssh-keygen -y -f FILE' prints it correctly.")
    if isinstance(key, rsa.RSAPublicKey) and not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise KeyRefused(
            f"an RSA key of {key.key_size} bits is not accepted: at least {MIN_RSA_BITS} and at most "
            f"{MAX_RSA_BITS} bits, or better 'ssh-keygen -t ed25519'."
        )


def _check_security_key(type_: str, raw: bytes) -> None:
    """ValueError unless it is OpenSSH's PROTOCOL.u2f layout: type, (curve,) public key, application."""
    fields = _strings(raw)
    if not fields or fields[0] != type_.encode("ascii"):
        raise ValueError("another type inside")
    if type_ == SK_ED25519:
        _, point, application = fields
        ed25519.Ed25519PublicKey.from_public_bytes(point)
    else:
        _, curve, point, application = fields
        if curve != b"nistp256" or point[:1] != b"\x04":
            raise ValueError("another curve inside")
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    if not application.startswith(b"ssh:") or not application.isascii() or len(application) > 256:
        raise ValueError("not a key for SSH")


def _strings(raw: bytes) -> list[bytes]:
    """Split a sequence of RFC 4251 strings; ValueError unless the bytes end exactly with the last one."""
    fields = []
    position = 0
    while position < len(raw):
        end = position + 4 + int.from_bytes(raw[position : position + 4], "big")
        if position + 4 > len(raw) or end > len(raw):
            raise ValueError("cut off")
        fields.append(raw[position + 4 : end])
        position = end
    return fields
