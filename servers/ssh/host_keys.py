"""SSH host keys as text, `type blob`, and their fingerprints (RFC 4253 section 6.6, RFC 4648 base64)."""

import base64
import binascii
import hashlib

# The order in which a new server's keys are preferred.
TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
MAX_LENGTH = 4096


def canonical(text: str) -> str:
    """`type blob` of a line such as `ssh-ed25519 AAAA... comment`; ValueError says what is wrong with it."""
    words = text.split()
    if len(text) > MAX_LENGTH or len(words) < 2 or words[0] not in TYPES:
        raise ValueError("this is not an SSH host key: write TYPE BLOB, as in /etc/ssh/ssh_host_ed25519_key.pub")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        raise ValueError("this is not an SSH host key: the blob is not base64") from None
    size = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + size] != words[0].encode():
        raise ValueError("this is not an SSH host key: its type differs from that of its blob")
    return f"{words[0]} {base64.b64encode(blob).decode()}"


def fingerprint(host_key: str) -> str:
    """As `ssh-keygen -lf` prints it; "" for an empty text."""
    if not host_key:
        return ""
    digest = hashlib.sha256(base64.b64decode(host_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
