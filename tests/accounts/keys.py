"""Keys for tests: from ssh-keygen, and security keys built as PROTOCOL.u2f specifies."""

import base64
import functools
import subprocess
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


@functools.cache
def generated(kind: str = "ed25519", bits: int = 0, number: int = 0) -> tuple[str, str]:
    """The public line and the private key file; each `number` is a different key."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        size = ["-b", str(bits)] if bits else []
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "me@laptop", "-f", str(path)], check=True
        )
        return path.with_suffix(".pub").read_text().strip(), path.read_text()


def line(number: int = 0, comment: str = "me@laptop") -> str:
    type_, blob, _ = generated("ed25519", number=number)[0].split()
    return f"{type_} {blob} {comment}"


def private(kind: str = "ed25519", bits: int = 0) -> str:
    return generated(kind, bits)[1]


def fingerprint(public_line: str) -> str:
    """The fingerprint that ssh-keygen prints."""
    done = subprocess.run(["ssh-keygen", "-lf", "-"], input=public_line, capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


def converted(public_line: str, form: str) -> str:
    """The same public key in another format: RFC4716, PKCS8 or PEM."""
    with tempfile.NamedTemporaryFile("w", suffix=".pub") as file:
        file.write(public_line + "\n")
        file.flush()
        command = ["ssh-keygen", "-e", "-m", form, "-f", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def as_line(type_: str, *fields: bytes, comment: str = "") -> str:
    blob = base64.b64encode(b"".join(string(field) for field in (type_.encode(), *fields))).decode()
    return f"{type_} {blob} {comment}".rstrip()


def sk_ed25519(application: bytes = b"ssh:") -> str:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return as_line("sk-ssh-ed25519@openssh.com", raw, application, comment="token")


def sk_ecdsa(application: bytes = b"ssh:") -> str:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return as_line("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", point, application, comment="token")
