"""System checks of the site's settings."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.http.request import validate_host


@register(Tags.security)
def check_site(**_: Any) -> Iterator[CheckMessage]:
    host = urlsplit(settings.PORTAL_URL).hostname or ""
    if not validate_host(f"[{host}]" if ":" in host else host, settings.ALLOWED_HOSTS):
        text = f"PORTAL_URL uses {host}, which ALLOWED_HOSTS does not include: servers cannot reach the portal."
        yield Error(text, f"Add {host} to ALLOWED_HOSTS.", id="lab_iam.E001")
    if settings.DEBUG:
        return
    if len(settings.SECRET_KEY) < 32:
        yield Warning("SECRET_KEY is too short.", "Generate one with 'openssl rand -base64 48'.", id="lab_iam.W001")
    if not settings.PORTAL_URL.startswith("https://"):
        hint = "Put an HTTPS proxy in front of the portal and set PORTAL_URL=https://..."
        yield Warning("PORTAL_URL uses plain http: passwords travel unencrypted.", hint, id="lab_iam.W002")
    if "*" in settings.ALLOWED_HOSTS:
        hint = "List the host names of the portal."
        yield Warning("ALLOWED_HOSTS=* accepts every host name.", hint, id="lab_iam.W003")
