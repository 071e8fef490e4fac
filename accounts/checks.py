"""System checks of the settings of the directory and of ports and subordinate ids."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from accounts.numbers import HIGHEST_ID


@register(Tags.compatibility)
def check_ranges(**_: Any) -> Iterator[CheckMessage]:
    ports, subuids = settings.LAB_PORTS, settings.LAB_SUBUIDS
    if ports.first < 1024 or ports.last > 65535:
        text, hint = "includes ports that cannot be assigned.", "Choose a range within 1024-65535."
        yield Error(f"LAB_PORTS={ports} {text}", hint, id="accounts.E001")
    elif ports.last > 32767:
        hint = "Stay below 32768, the default start of net.ipv4.ip_local_port_range."
        text = f"LAB_PORTS={ports} overlaps the ports that Linux uses for outgoing connections."
        yield Warning(text, hint, id="accounts.W001")
    if subuids.first < 65536 or subuids.last > HIGHEST_ID:
        text = f"LAB_SUBUIDS={subuids} includes numbers that cannot be subordinate ids."
        yield Error(text, f"Choose a range within 65536-{HIGHEST_ID}.", id="accounts.E002")


@register(Tags.security)
def check_directory(**_: Any) -> Iterator[CheckMessage]:
    if not settings.LDAP_URL:
        hint = "Set LDAP_URL, LDAP_USER_BASE, LDAP_BIND_DN and LDAP_BIND_PASSWORD_FILE."
        yield Warning("LDAP_URL is not set: only local staff accounts can sign in.", hint, id="accounts.W002")
        return
    if not settings.LDAP_USER_BASE:
        hint = "Set it, for example to ou=people,dc=mylab,dc=com."
        yield Error("LDAP_USER_BASE is not set.", hint, id="accounts.E003")
    if not _filter_works(settings.LDAP_USER_FILTER):
        hint = "Write for example (uid=%(user)s), with the parentheses; write %% for a literal %."
        text = "LDAP_USER_FILTER is not an LDAP filter with %(user)s for the user name."
        yield Error(text, hint, id="accounts.E004")
    if settings.LDAP_CA_FILE and not Path(settings.LDAP_CA_FILE).is_file():
        text = "LDAP_CA_FILE does not exist: the directory's certificate cannot be verified."
        yield Error(text, "Save the directory's CA certificate there, in PEM format.", id="accounts.E005")
    is_encrypted = urlsplit(settings.LDAP_URL).scheme == "ldaps"
    if is_encrypted and settings.LDAP_START_TLS:
        hint = "Use either ldaps://, or ldap:// with LDAP_START_TLS=true."
        yield Error("LDAP_START_TLS does not work together with ldaps://.", hint, id="accounts.E006")
    if not is_encrypted and not settings.LDAP_START_TLS:
        hint = "Set LDAP_START_TLS=true and LDAP_CA_FILE, or use ldaps://."
        yield Warning("Passwords are sent to the directory unencrypted.", hint, id="accounts.W003")
    if not settings.LDAP_BIND_DN:
        text = "LDAP_BIND_DN is not set: the directory is searched anonymously."
        yield Warning(text, "Create an account for the portal in the directory.", id="accounts.W004")


def _filter_works(text: str) -> bool:
    try:
        filled = text % {"user": "alice"}
    except (KeyError, ValueError, TypeError):
        return False
    return "alice" in filled and filled.startswith("(") and filled.endswith(")")
