"""manage.py create_portal_key"""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from accounts.services import audit
from servers.management.terminal import ACTOR, LabCommand
from servers.ssh import portal_key


class Command(LabCommand):
    help = """Make the portal's own SSH key (ed25519), with which it enters the servers as the account
`iam`.

The private half goes to the file of the setting PORTAL_KEY_FILE (by default portal_ed25519 in DATA_DIR),
readable by its owner only; the public half is printed. deploy_server puts it on the servers. Run
this once, as the account that the portal and its worker run as, and keep the file in your backup.

An existing key is kept unless you give --force. After replacing it, no server accepts the portal
until you have run deploy_server for it.

Exit status: 0 done, 1 a key exists already or the file cannot be written, 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--force", action="store_true", help="replace the key, after a question")
        parser.add_argument("--yes", action="store_true", help="with --force: do not ask")

    def handle(self, *args: Any, force: bool, yes: bool, **options: Any) -> None:
        path = settings.PORTAL_KEY_FILE
        if path.exists():
            if not force:
                raise CommandError(f"{path} exists already: --force replaces it.")
            if not yes:
                self.confirm(f"Replace {path}? Every server must be deployed again", "--yes")
        try:
            line = portal_key.create(path)
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror}.") from None
        audit.record(actor=ACTOR, verb="portal.key_created", object=str(path), detail={"public_key": line})
        self.say(line)
