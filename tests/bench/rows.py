"""The database rows of a bench: people with keys, servers, one change, and waiting for the worker's results."""

import os
import random
import sqlite3
import time
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.light import FIRST_SUBUID, LightServer

PATIENCE = 300.0


class Rows:
    """`env` holds the portal's settings, which this process uses from now on."""

    def __init__(self, env: Mapping[str, str], database: Path) -> None:
        os.environ.update(env)
        os.environ["DJANGO_SETTINGS_MODULE"] = "lab_iam.settings"
        import django

        django.setup()
        self._database = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        self._dice = random.Random(1)

    def fill(self, names: list[str], servers: list[LightServer], host_key: str) -> None:
        from accounts.models import KeyRange, Port, Revision, SSHKey, SubuidRange, User
        from servers.models import Server

        users = User.objects.bulk_create(User(username=name, keys_revision=1, password="!") for name in names)
        Port.objects.bulk_create(Port(number=30000 + n, user=u, username=u.username) for n, u in enumerate(users))
        SubuidRange.objects.bulk_create(
            SubuidRange(start=FIRST_SUBUID + 65536 * n, user=u, username=u.username) for n, u in enumerate(users)
        )
        keys = []
        for user in users:
            for _ in range(2):
                blob = self._blob()
                keys.append(SSHKey(user=user, key_type="ssh-ed25519", blob=blob, fingerprint=blob[-44:]))
        SSHKey.objects.bulk_create(keys)
        KeyRange.objects.bulk_create(KeyRange(key=key, start=1) for key in keys)
        Revision.objects.create(number=1)
        Server.objects.bulk_create(
            Server(name=server.name, address=server.address, host_key=host_key) for server in servers
        )

    def _blob(self) -> str:
        head = b"\0\0\0\x0bssh-ed25519\0\0\0 "
        return b64encode(head + self._dice.randbytes(32)).decode()

    def change(self, names: list[str]) -> None:
        """Replace one key of one person."""
        from accounts.models import User
        from accounts.services import keys

        user = User.objects.get(username=self._dice.choice(names))
        known = user.ssh_keys.active()
        if known.count() > 4:
            keys.revoke_key(actor="bench", key=known[0])
        else:
            keys.add_keys(actor="bench", user=user, pasted=f"ssh-ed25519 {self._blob()}")

    def revision(self) -> int:
        return int(self._database.execute("SELECT number FROM accounts_revision").fetchone()[0])

    def wait_for(self, revision: int) -> None:
        """Wait until every server has confirmed this revision without an error."""
        query = "SELECT count(*) FROM servers_serverstate WHERE applied_revision < ? OR last_error IS NOT NULL"
        self.wait(query, (revision,), 0)

    def wait(self, query: str, values: tuple[Any, ...], wanted: int) -> None:
        end = time.monotonic() + PATIENCE
        while self._database.execute(query, values).fetchone()[0] != wanted:
            if time.monotonic() > end:
                errors = self._database.execute("SELECT DISTINCT last_error FROM servers_serverstate").fetchall()
                raise TimeoutError(f"not pushed within {PATIENCE:.0f} s: {errors}")
            time.sleep(0.002)
