"""manage.py raise_revision"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from accounts.services import keys
from servers.management.terminal import ACTOR, LabCommand
from servers.models import Server
from servers.services.push import revisions


class Command(LabCommand):
    help = """Make the servers take this portal's keys again after an older database was restored.

A server refuses keys of an older revision than the one that it holds, so a portal with an older
database can take nothing away and give nothing back: its pushes end with "it holds a newer revision
of the keys than the portal". This command asks every server in service which revision it holds, and
raises the portal's above the highest. Then the servers take what THIS database says: keys that were
added since the backup go away (ask their owners to paste them again), and keys that were removed
since the backup come back (remove them again at once).

If the newer database can still be had, use that one instead. Nothing is changed if no server holds
anything newer. A server that does not answer now may hold a higher revision still: run this again
when it is back.

Exit status: 0 raised, or not needed; 1 a server could not be asked, or you said no; 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, yes: bool, **options: Any) -> None:
        told = revisions.ask(list(Server.objects.filter(enabled=True)))
        silent = [one for one in told if one.answer is None]
        for one in told:
            if one.answer is not None:
                self.say(f"{one.server.name}: holds revision {one.answer.revision}")
            elif one.fault is not None:
                self.say(f"{one.server.name}: {one.fault}")
        current = keys.current_revision()
        newer = revisions.newer(told)
        if newer:
            names = ", ".join(one.server.name for one in newer)
            if not yes:
                self.confirm(f"Raise revision {current}, so that {names} take this database's keys?", "--yes")
            number = revisions.raise_revision(actor=ACTOR, told=[one for one in told if one.answer is not None])
            self.say(f"The revision was {current} and is {number} now: the worker pushes this database's keys.")
        else:
            self.say(f"Nothing was changed: no server that answered holds anything newer than revision {current}.")
        if silent:
            names = ", ".join(one.server.name for one in silent)
            raise CommandError(f"Not asked: {names}. Run this again when they answer.")
