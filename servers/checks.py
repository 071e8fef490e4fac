"""System checks of the portal key and of what servers hold."""

import importlib.util
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError

from servers.services.push import revisions
from servers.ssh import portal_key


@register
def broker_is_usable(**_: Any) -> list[CheckMessage]:
    if not settings.BROKER_URL or importlib.util.find_spec("redis") is not None:
        return []
    return [
        Error(
            "BROKER_URL is set, but Python's redis module is missing: the worker cannot start, nothing wakes it.",
            hint="Run pip install -r requirements-redis.txt, or remove BROKER_URL.",
            id="servers.E004",
        )
    ]


@register
def iam_key_is_usable(**_: Any) -> list[CheckMessage]:
    path = settings.PORTAL_KEY_FILE
    if not path.exists():
        return [
            Warning(
                f"The portal has no SSH key ({path}): it cannot enter any server.",
                hint="Run manage.py create_portal_key.",
                id="servers.W001",
            )
        ]
    if path.stat().st_mode & 0o077:
        return [
            Error(
                f"Others on this machine can read the portal's SSH key {path}.",
                hint=f"Run chmod 600 {path}; if others use this machine, make a new key.",
                id="servers.E002",
            )
        ]
    try:
        portal_key.public_line(path)
    except portal_key.NoKey as error:
        return [Error(str(error), id="servers.E003")]
    return []


@register(Tags.database)
def no_server_is_ahead(databases: Any = None, **_: Any) -> list[CheckMessage]:
    """With `check --database default`, and with each migrate, which follows a restored backup."""
    try:
        names = [server.name for server in revisions.ahead()] if databases else []
    except DatabaseError:  # the tables are not there yet
        return []
    if not names:
        return []
    return [
        Warning(
            f"Newer keys than in this database are on: {', '.join(names)}. It looks like an older copy.",
            hint="If it is meant to be used, run manage.py raise_revision; see its --help.",
            id="servers.W004",
        )
    ]
