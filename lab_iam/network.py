"""A client's real address behind trusted proxies."""

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """The IP address of the client, as far as trusted proxies report it.

    Each trusted proxy appends one entry to X-Forwarded-For, so the client is the TRUSTED_PROXIES-th entry
    from the right. Entries further left come from the client itself and are ignored.
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
