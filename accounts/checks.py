"""System checks of the settings of the directory and of ports and subordinate ids."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from accounts.numbers import HIGHEST_ID, NumberRange


@register(Tags.compatibility)
def check_ranges(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    messages: list[CheckMessage] = []
    ports: NumberRange = settings.LAB_PORTS
    if ports.first < 1024 or ports.last > 65535:
        messages.append(
            Error(
                f"LAB_PORTS={ports} includes ports that cannot be assigned.",
                hint="Choose a range within 1024-65535.",
                id="accounts.E001",
            )
        )
    elif ports.last > 32767:
        messages.append(
            Warning(
                f"LAB_PORTS={ports} overlaps the ports that Linux uses for outgoing connections.",
                hint="Stay below 32768, the default start of net.ipv4.ip_local_port_range.",
                id="accounts.W001",
            )
        )
    subuids: NumberRange = settings.LAB_SUBUIDS
    if subuids.first < 65536 or subuids.last > HIGHEST_ID:
        messages.append(
            Error(
                f"LAB_SUBUIDS={subuids} includes numbers that cannot be subordinate ids.",
                hint=f"Choose a range within 65536-{HIGHEST_ID}.",
                id="accounts.E002",
            )
        )
    return messages


@register(Tags.security)
def check_directory(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not settings.LDAP_URL:
        return [
            Warning(
                "LDAP_URL is not set: only local staff accounts can sign in.",
                hint="Set LDAP_URL, LDAP_USER_BASE, LDAP_BIND_DN and LDAP_BIND_PASSWORD_FILE.",
                id="accounts.W002",
            )
        ]
    messages: list[CheckMessage] = []
    if not settings.LDAP_USER_BASE:
        messages.append(
            Error(
                "LDAP_USER_BASE is not set.",
                hint="Set it, for example to ou=people,dc=mylab,dc=com.",
                id="accounts.E003",
            )
        )
    if not _filter_works(settings.LDAP_USER_FILTER):
        messages.append(
            Error(
                "LDAP_USER_FILTER is not an LDAP filter with %(user)s for the user name.",
                hint="Write for example (uid=%(user)s), with the parentheses; write %% for a literal %.",
                id="accounts.E004",
            )
        )
    if settings.LDAP_CA_FILE and not Path(settings.LDAP_CA_FILE).is_file():
        messages.append(
            Error(
                "LDAP_CA_FILE does not exist: the directory's certificate cannot be verified.",
                hint="Save the directory's CA certificate there, in PEM format.",
                id="accounts.E005",
            )
        )
    return messages + _check_transport()


def _check_transport() -> list[CheckMessage]:
    messages: list[CheckMessage] = []
    encrypted = urlsplit(settings.LDAP_URL).scheme == "ldaps"
    if encrypted and settings.LDAP_START_TLS:
        messages.append(
            Error(
                "LDAP_START_TLS does not work together with ldaps://.",
                hint="Use either ldaps://, or ldap:// with LDAP_START_TLS=true.",
                id="accounts.E006",
            )
        )
    if not encrypted and not settings.LDAP_START_TLS:
        messages.append(
            Warning(
                "Passwords are sent to the directory unencrypted.",
                hint="Set LDAP_START_TLS=true and LDAP_CA_FILE, or use ldaps://.",
                id="accounts.W003",
            )
        )
    if not settings.LDAP_BIND_DN:
        messages.append(
            Warning(
                "LDAP_BIND_DN is not set: the directory is searched anonymously.",
                hint="Create an account for the portal in the directory.",
                id="accounts.W004",
            )
        )
    return messages


def _filter_works(text: str) -> bool:
    try:
        filled = text % {"user": "alice"}
    except (KeyError, ValueError, TypeError):
        return False
    return "alice" in filled and filled.startswith("(") and filled.endswith(")")
