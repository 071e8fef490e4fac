"""Test the connection to a server, its host key and its programs, within seconds so that a page can do it."""

from servers.models import Server
from servers.services import remote
from servers.services.fleet import servers
from servers.services.push import results
from servers.ssh import host_keys
from servers.ssh.dial import RemoteError
from servers.ssh.host_key_scan import scan_host_key

SECONDS = 10.0


def test(*, actor: str, server: Server) -> str:
    """Return one line about the server and store its status. Raises RemoteError.

    An offered host key that is not the pinned one is stored, for staff to accept.
    """
    if not server.host_key:
        offered = scan_host_key(server.address, server.ssh_port)
        servers.record_offered_key(actor=actor, server=server, offered=offered)
        shown = host_keys.fingerprint(offered)
        raise RemoteError(
            "host_key_offered", code="host_key_unknown", permanent=True, offered=offered, fingerprint=shown
        )
    try:
        answer = remote.status(server, seconds=SECONDS)
    except RemoteError as error:
        servers.record_offered_key(actor=actor, server=server, offered=error.offered)
        raise
    results.record_status(server, answer)
    return (
        f"{server.name}: answers as {answer.name or 'nobody'}, host programs {answer.labhost or '?'}, "
        f"revision {answer.revision}, {len(answer.containers)} containers."
    )
