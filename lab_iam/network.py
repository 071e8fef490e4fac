"""A client's real address behind trusted proxies."""

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """The address that this request really came from.

    Each trusted proxy appends one entry to X-Forwarded-For, so the client is the TRUSTED_PROXIES-th entry
    from the right: whatever the client itself wrote into that header stands further left and is not read.
    """
    remote = str(request.META.get("REMOTE_ADDR", ""))
    if not settings.TRUSTED_PROXIES:
        return remote
    entries = [entry.strip() for entry in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    if len(entries) < settings.TRUSTED_PROXIES:
        return remote
    try:
        return str(ipaddress.ip_address(entries[-settings.TRUSTED_PROXIES]))
    except ValueError:
        return remote
