"""System checks: the broker, the portal key, servers ahead of the database, and servers without a token."""

import importlib.util
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError

from servers.models import Server
from servers.services.status import backlog
from servers.ssh import portal_key


@register
def broker_is_usable(**_: Any) -> Iterator[CheckMessage]:
    if settings.BROKER_URL and importlib.util.find_spec("redis") is None:
        text = "BROKER_URL is set, but the Python module redis is missing, so the worker cannot start."
        yield Error(text, "Run pip install -r requirements-redis.txt, or remove BROKER_URL.", id="servers.E004")


@register
def portal_key_is_usable(**_: Any) -> Iterator[CheckMessage]:
    path = settings.PORTAL_KEY_FILE
    if not path.exists():
        text = f"The portal has no SSH key ({path}), so it cannot log in to any server."
        yield Warning(text, "Run manage.py create_portal_key.", id="servers.W001")
    elif path.stat().st_mode & 0o077:
        text = f"Other accounts on this machine can read the portal's SSH key {path}."
        hint = f"Run chmod 600 {path}. If other people use this machine, replace the key."
        yield Error(text, hint, id="servers.E002")
    else:
        try:
            portal_key.public_line(path)
        except portal_key.NoKey as error:
            yield Error(str(error), id="servers.E003")


@register(Tags.database)
def no_server_is_ahead(databases: Any = None, **_: Any) -> Iterator[CheckMessage]:
    """Runs with `check --database default` and with each migrate, for example after restoring a backup."""
    try:
        names = ", ".join(server.name for server in backlog.ahead()) if databases else ""
    except DatabaseError:  # not migrated yet
        return
    if names:
        text = f"These servers are ahead of the database: {names}. The database may be an older copy."
        hint = "To use this database, run manage.py adopt_server; see its --help."
        yield Warning(text, hint, id="servers.W004")


@register(Tags.database)
def servers_read_with_their_token(databases: Any = None, **_: Any) -> Iterator[CheckMessage]:
    """A server without a token reads by its address, as its containers could."""
    try:
        without = (
            list(Server.objects.in_service().filter(token_digest="").values_list("name", flat=True))
            if databases
            else []
        )
    except DatabaseError:
        return
    if without:
        text = f"These servers have no token with which to read the plain-text pages: {', '.join(without)}."
        yield Warning(text, "Run manage.py deploy_server for each.", id="servers.W005")
    if settings.PLAIN_TEXT_BY_ADDRESS and databases and not without:
        text = "PLAIN_TEXT_BY_ADDRESS lets every container read the plain-text pages, and no server needs it."
        yield Warning(text, "Remove PLAIN_TEXT_BY_ADDRESS.", id="servers.W006")
