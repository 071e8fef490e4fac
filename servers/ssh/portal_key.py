"""The portal's own SSH key, with which it enters the servers as `iam`: an ed25519 key in a file."""

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

COMMENT = "lab-iam"


class NoKey(Exception):
    """There is no usable key; the message says what to do."""


def create(path: Path) -> str:
    """Write a new key, 0600, whole or not at all, over an older one; gives the public line."""
    key = ed25519.Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:  # noqa: PTH123 - a descriptor
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.rename(path)
    return public_line(path)


def public_line(path: Path) -> str:
    """`ssh-ed25519 AAAA...` of the key in this file. Raises NoKey."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise NoKey(
            f"The portal's SSH key {path} cannot be read ({error.strerror}): run manage.py create_portal_key."
        ) from None
    except ValueError:
        raise NoKey(f"{path} is not an SSH key: run manage.py create_portal_key --force.") from None
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line.decode()
