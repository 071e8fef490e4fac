"""From a Server row to an open connection as `iam`."""

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
    """A connection to be entered with `with`. Raises RemoteError if the portal has no key."""
    return Host(endpoint(server), _login(server), seconds=seconds)


def push_session(server: Server, *, seconds: float) -> AbstractContextManager[PooledSession]:
    """Questions of set-keys, on a session that stays open. Raises RemoteError if the portal has no key."""
    return sessions.pool().line(endpoint(server), _login(server), seconds=seconds)


def _login(server: Server) -> Login:
    path = settings.PORTAL_KEY_FILE
    try:
        _check_key(path, _changed(path))
    except portal_key.NoKey as error:
        raise RemoteError("no_key", str(error), permanent=True) from None
    return Login(ACCOUNT, path, hint=f"run manage.py deploy_server {server.name}")


@lru_cache(maxsize=8)
def _check_key(path: Path, _changed: int) -> None:
    """Once after each change, not for each server of each push; what is refused is looked at again. Raises NoKey."""
    portal_key.public_line(path)


def _changed(path: Path) -> int:
    """Also another owner or mode is a change; 0 if it cannot be seen."""
    try:
        return path.stat().st_ctime_ns
    except OSError:
        return 0


def status(server: Server, *, seconds: float = STATUS_SECONDS) -> protocol.Answer:
    """What the server says about itself, within `seconds`. Raises RemoteError, also when it refuses."""
    with connect(server, seconds=seconds) as host:
        answer = ask(host, protocol.STATUS, protocol.frame(protocol.build_status()))
    if not answer.ok:
        raise RemoteError("refused", f"{server.name}: {answer.error and answer.error.reason}.")
    return answer
