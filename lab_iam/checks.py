"""System checks of the site's settings."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.http.request import validate_host


@register(Tags.security)
def check_site(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    messages: list[CheckMessage] = []
    host = urlsplit(settings.PORTAL_URL).hostname or ""
    if not settings.DEBUG and len(settings.SECRET_KEY) < 32:
        messages.append(
            Warning(
                "SECRET_KEY is too short.",
                hint="Generate one with 'openssl rand -base64 48'.",
                id="lab_iam.W001",
            )
        )
    if not settings.DEBUG and not settings.PORTAL_URL.startswith("https://"):
        messages.append(
            Warning(
                "PORTAL_URL uses plain http: passwords travel unencrypted.",
                hint="Put an HTTPS proxy in front of the portal and set PORTAL_URL=https://...",
                id="lab_iam.W002",
            )
        )
    if not _is_allowed(host):
        messages.append(
            Error(
                f"PORTAL_URL uses {host}, which ALLOWED_HOSTS does not include: servers cannot reach the portal.",
                hint=f"Add {host} to ALLOWED_HOSTS.",
                id="lab_iam.E001",
            )
        )
    if "*" in settings.ALLOWED_HOSTS and not settings.DEBUG:
        messages.append(
            Warning(
                "ALLOWED_HOSTS=* accepts every host name.",
                hint="List the host names of the portal.",
                id="lab_iam.W003",
            )
        )
    return messages


def _is_allowed(host: str) -> bool:
    return validate_host(f"[{host}]" if ":" in host else host, settings.ALLOWED_HOSTS)
