"""Public keys of every type, made of their wire fields, without private keys."""

import base64
import struct


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def number(value: int) -> bytes:
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big"))


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(fields)).decode()


def ed25519(seed: int = 1) -> dict[str, str]:
    text = blob(string(b"ssh-ed25519"), string(seed.to_bytes(32, "big")))
    return {"type": "ssh-ed25519", "blob": text, "comment": f"laptop {seed}"}


def sk_ed25519() -> dict[str, str]:
    kind = "sk-ssh-ed25519@openssh.com"
    return {"type": kind, "blob": blob(string(kind.encode()), string(bytes(32)), string(b"ssh:")), "comment": ""}


def ecdsa(curve: str, size: int, kind: str = "", *, tail: bytes = b"") -> dict[str, str]:
    kind = kind or f"ecdsa-sha2-{curve}"
    point = b"\x04" + bytes(2 * size)
    return {
        "type": kind,
        "blob": blob(string(kind.encode()), string(curve.encode()), string(point), tail),
        "comment": "",
    }


def rsa(bits: int, *, exponent: int = 65537) -> dict[str, str]:
    modulus = (1 << (bits - 1)) | 1
    return {"type": "ssh-rsa", "blob": blob(string(b"ssh-rsa"), number(exponent), number(modulus)), "comment": ""}
