"""manage.py create_portal_key"""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from accounts.services import audit
from servers.management.terminal import ACTOR, LabCommand
from servers.ssh import portal_key


class Command(LabCommand):
    help = """Create the portal's SSH key (ed25519), with which it logs in to the servers as `iam`.

Writes the private key to the file of the setting PORTAL_KEY_FILE (by default portal_ed25519 in
DATA_DIR), readable only by its owner, and prints the public key. deploy_server installs the public
key on the servers. Run this once, as the account that runs the portal and its worker, and back the
file up.

An existing key is only replaced with --force. After that, run deploy_server for every server: until
then it does not accept the portal.

Examples:

    manage.py create_portal_key
    manage.py create_portal_key --force

Exit status: 0 created; 1 a key exists or the file cannot be written; 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--force", action="store_true", help="replace an existing key, after a question")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, force: bool, yes: bool, **options: Any) -> None:
        path = settings.PORTAL_KEY_FILE
        if path.exists():
            if not force:
                raise CommandError(f"{path} exists already; use --force to replace it.")
            if not yes:
                self.confirm(f"Replace {path}? You must then run deploy_server for every server.", "--yes")
        try:
            line = portal_key.create(path)
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror}.") from None
        audit.record(actor=ACTOR, verb="portal.key_created", object=str(path), detail={"public_key": line})
        self.print_line(line)
