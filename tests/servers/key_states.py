"""The state that the portal shows for a key."""

from accounts.models import SSHKey
from servers.models import Server
from servers.services.status import key_status, overview
from servers.services.status.key_status import KeyOnServer


def on(key: SSHKey, server: Server) -> KeyOnServer:
    key = SSHKey.objects.select_related("user").get(pk=key.pk)
    (status,) = key_status.status_of([key])
    return next(one for one in status.servers if one.server.pk == server.pk)


def places(key: SSHKey, server: Server) -> dict[str, str]:
    return {place.name: str(place.state) for place in on(key, server).places}


def pending() -> dict[str, int]:
    return dict(Server.objects.annotate(count=overview.keys_pending()).values_list("name", "count"))
