"""Open a connection as `iam` to the server of a row."""

from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from servers import protocol
from servers.models import Server
from servers.ssh import portal_key, sessions
from servers.ssh.dial import Endpoint, RemoteError
from servers.ssh.host import Host, Login, ask
from servers.ssh.sessions import PooledSession

ACCOUNT = "iam"
STATUS_SECONDS = 20.0


def endpoint(server: Server) -> Endpoint:
    return Endpoint(server.name, server.address, server.ssh_port, server.host_key)


def connect(server: Server, *, seconds: float) -> Host:
    """A connection, as a context manager. Raises RemoteError if the portal has no key."""
    return Host(endpoint(server), _login(), seconds=seconds)


def push_session(server: Server, *, seconds: float) -> AbstractContextManager[PooledSession]:
    """A set-keys session, which stays open for later pushes. Raises RemoteError if the portal has no key."""
    return sessions.pool().session(endpoint(server), _login(), seconds=seconds)


def _login() -> Login:
    path = settings.PORTAL_KEY_FILE
    _check_key(path, _change_time(path))
    return Login(ACCOUNT, path, refused="portal_key_refused")


@lru_cache(maxsize=8)
def _check_key(path: Path, _change_time: int) -> None:
    """Reads the key once after each change of the file, not for each server of each push. Raises NoKey."""
    portal_key.public_line(path)


def _change_time(path: Path) -> int:
    """Changes with the content, the owner and the mode; 0 if it cannot be read."""
    try:
        return path.stat().st_ctime_ns
    except OSError:
        return 0


def status(server: Server, *, seconds: float = STATUS_SECONDS, keys: bool = False) -> protocol.Answer:
    """The server's own status, within `seconds`; `keys`: and its keys. Raises RemoteError, also when it refuses."""
    with connect(server, seconds=seconds) as host:
        answer = ask(host, protocol.STATUS, keys=keys)
    if not answer.ok:
        raise RemoteError(answer.error or "refused", code="refused")
    return answer
