"""Who may read the plain-text pages: servers by their token, configured networks, staff, and people about themselves.

A server's address alone proves nothing: the requests of its containers leave with it.
"""

import hashlib
import ipaddress

from django.conf import settings
from django.db.models import Q
from django.http import HttpRequest

from lab_iam.network import client_address
from servers.models import Server


def may_read(request: HttpRequest, name: str) -> bool:
    return request.user.get_username() == name or may_read_all(request)


def may_read_all(request: HttpRequest) -> bool:
    if request.user.is_authenticated and request.user.is_staff:
        return True
    return _is_trusted_address(client_address(request)) or server_of(request) is not None


def _is_trusted_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if any(address in network for network in settings.LAB_NETWORKS):
        return True
    return settings.PLAIN_TEXT_BY_ADDRESS and Server.objects.in_service().filter(address=str(address)).exists()


def server_of(request: HttpRequest) -> Server | None:
    """The server in service whose token was sent as `Authorization: Bearer TOKEN`."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return None
    # Only digests are stored, so a plain query leaks no timing.
    digest = hashlib.sha256(token.strip().encode()).hexdigest()
    return Server.objects.in_service().filter(Q(token_digest=digest) | Q(next_token_digest=digest)).first()
