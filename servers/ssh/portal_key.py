"""The portal's own SSH key, with which it logs in to the servers as `iam`: an ed25519 key in a file."""

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from servers.ssh.dial import RemoteError, error_text


class NoKey(RemoteError):
    """There is no usable key; the text says what to do."""

    def __init__(self, reason: str, path: Path, **params: str) -> None:
        super().__init__(reason, code="no_key", permanent=True, path=str(path), **params)


def create(path: Path) -> str:
    """Write a new key (0600) atomically, replacing an older one; returns the public line."""
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
        raise NoKey("portal_key_missing", path, detail=error_text(error)) from None
    except ValueError:
        raise NoKey("portal_key_invalid", path) from None
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line.decode()
