"""Add, change and remove servers, and pin their host keys."""

import ipaddress

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts.services import audit
from servers.models import Server, ServerState
from servers.services.worker import queue
from servers.ssh import host_keys


class ServerRefused(Exception):
    """The change cannot be made; the message says why."""


def new(*, name: str, address: str, ssh_port: int) -> Server:
    """A checked server that is not saved yet. Raises ServerRefused."""
    server = Server(name=name, address=canonical(address), ssh_port=ssh_port)
    _check(server)
    return server


def add(*, actor: str, name: str, address: str, ssh_port: int = 22, host_key: str = "") -> Server:
    """Add a server. Without `host_key` nothing is pushed until one is pinned. Raises ServerRefused."""
    server = new(name=name, address=address, ssh_port=ssh_port)
    server.host_key = host_keys.canonical(host_key) if host_key else ""
    with transaction.atomic():
        server.save()
        _audit(actor, "server.added", server, address=server.address, fingerprint=server.fingerprint)
    return server


def change_address(*, actor: str, server: Server, address: str, ssh_port: int) -> None:
    """Change the address of a server; its host key stays. Raises ServerRefused."""
    before = f"{server.address} port {server.ssh_port}"
    server.address, server.ssh_port = canonical(address), ssh_port
    _check(server)
    with transaction.atomic():
        server.save(update_fields=["address", "ssh_port"])
        _audit(actor, "server.moved", server, before=before, now=f"{server.address} port {server.ssh_port}")


def remove(*, actor: str, server: Server) -> None:
    """Delete a server and its history. Nothing changes on the machine itself."""
    with transaction.atomic():
        _audit(actor, "server.removed", server, address=server.address)
        server.delete()


def pin_host_key(*, actor: str, server: Server, host_key: str) -> None:
    """Pin this host key; pushes resume immediately."""
    old = server.fingerprint
    server.host_key, server.offered_host_key = host_keys.canonical(host_key), ""
    with transaction.atomic():
        Server.objects.filter(pk=server.pk).update(host_key=server.host_key, offered_host_key="")
        _retry_now(server)
        _audit(actor, "server.host_key_pinned", server, before=old, now=server.fingerprint)


def accept_offered_key(*, actor: str, server: Server, fingerprint: str) -> None:
    """Pin the offered key if it is still the one with this fingerprint. Raises ServerRefused."""
    server.refresh_from_db()
    if not server.offered_host_key or server.offered_fingerprint != fingerprint:
        raise ServerRefused(f"{server.name} offers another host key now. Check it again.")
    pin_host_key(actor=actor, server=server, host_key=server.offered_host_key)


def set_enabled(*, actor: str, server: Server, enabled: bool) -> bool:
    """Take a server into service or out of it; False if nothing changed. Enabling pushes what it missed."""
    with transaction.atomic():
        changed = Server.objects.filter(pk=server.pk, enabled=not enabled).update(enabled=enabled)
        if not changed:
            return False
        _audit(actor, "server.enabled" if enabled else "server.disabled", server)
        if enabled:
            _retry_now(server)
    server.enabled = enabled
    return True


def _retry_now(server: Server) -> None:
    ServerState.objects.filter(pk=server.pk).update(next_attempt=timezone.now(), attempts=0)
    queue.enqueue(queue.PUSH)


def _check(server: Server) -> None:
    try:
        server.full_clean()
    except ValidationError as error:
        raise ServerRefused(" ".join(error.messages)) from None


def canonical(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower()


def _audit(actor: str, verb: str, server: Server, **detail: str) -> None:
    audit.record(actor=actor, verb=verb, object=server.name, detail=detail)
