"""manage.py raise_revision"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from accounts.services import keys
from servers.management.terminal import ACTOR, LabCommand
from servers.models import Server
from servers.services.push import revisions


class Command(LabCommand):
    help = """Make the servers accept this portal's keys after restoring an older database.

A server refuses keys with an older revision than it has, so after a restore the portal can neither
add nor remove keys there: the server is "ahead of the database". This command reads the revision of
every server in service and raises the portal's above the highest. The servers then get the keys of
THIS database: keys that were added since the backup are removed (ask their owners to add them
again), and keys that were removed since the backup come back (remove them again now).

If you still have the newer database, use that instead. If no server is ahead, nothing is changed. A
server that does not answer may have an even higher revision: run this again when it is reachable.

Examples:

    manage.py raise_revision
    manage.py raise_revision --yes

Exit status: 0 raised, or not needed; 1 a server did not answer, or you answered no; 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, yes: bool, **options: Any) -> None:
        reports = revisions.ask(list(Server.objects.in_service()))
        unreachable = [one for one in reports if one.answer is None]
        for one in reports:
            text = one.fault if one.answer is None else f"revision {one.answer.revision}"
            self.print_line(f"{one.server.name}: {text}")
        current = keys.current_revision()
        newer = revisions.newer(reports)
        if newer:
            names = ", ".join(one.server.name for one in newer)
            if not yes:
                question = f"Raise revision {current}, and replace the keys on {names} by those of this database?"
                self.confirm(question, "--yes")
            number = revisions.raise_revision(actor=ACTOR, reports=[one for one in reports if one.answer is not None])
            self.print_line(f"Revision raised from {current} to {number}; a push to all servers is queued.")
        else:
            self.print_line(f"Nothing was changed: no server that answered has a newer revision than {current}.")
        if unreachable:
            names = ", ".join(one.server.name for one in unreachable)
            raise CommandError(f"No answer from {names}. Run this again when they are reachable.")
