"""Which host key does a server show now? Asked with Paramiko, without logging in."""

import logging
import time

import paramiko

from servers.ssh import host_keys
from servers.ssh.dial import CONNECT_SECONDS, Endpoint, RemoteError, close_socket, dial, error_text

# Paramiko logs a traceback for each server that is down; callers report it in one line.
LOG_CHANNEL = f"{__name__}.paramiko"
logging.getLogger(LOG_CHANNEL).setLevel(logging.CRITICAL + 1)


def scan_host_key(address: str, port: int, *, seconds: float = CONNECT_SECONDS) -> str:
    """The host key, `type blob`, that is shown at this address now. Raises RemoteError."""
    end = time.monotonic() + seconds
    sock = dial(Endpoint(address, address, port, ""), seconds)
    transport = None
    try:
        transport = paramiko.Transport(sock)
        transport.set_log_channel(LOG_CHANNEL)
        transport.banner_timeout = seconds
        transport.start_client(timeout=max(end - time.monotonic(), 0.1))
        key = transport.get_remote_server_key()
        return host_keys.canonical(f"{key.get_name()} {key.get_base64()}")
    except (paramiko.SSHException, OSError, EOFError, ValueError) as error:
        detail = error_text(error)
        raise RemoteError("no_host_key", code="unreachable", address=address, port=port, detail=detail) from None
    finally:
        close_socket(sock)
        if transport is not None:
            transport.close()
