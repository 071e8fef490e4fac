"""manage.py remove_container"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from servers.management.terminal import ACTOR, LabCommand
from servers.services.containers import jobs


class Command(LabCommand):
    help = """Remove the container and the account of one person on one server, and show the progress.

Her open sessions there are ended, the container is stopped, and its port leads nowhere. The files
are kept on the server, for root alone, unless --purge is given: then they are deleted, kept ones of
earlier removals as well. The person's keys, port and ids at the portal stay as they are, and she
may register again; lock her out in the admin if she should not.

It can be repeated without harm, and continues a removal that was interrupted. A server that is
away is tried again by the worker until it has answered.

Exit status: 0 it is removed, 1 it is not yet (the last line says why), 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("server", help="a server that add_server knows")
        parser.add_argument("user", help="name of the person")
        parser.add_argument("--purge", action="store_true", help="delete the files as well")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, server: str, user: str, purge: bool, yes: bool, **options: Any) -> None:
        machine, person = self.server(server), self.person(user)
        if not yes:
            files = "and DELETE all files" if purge else "and keep the files"
            self.confirm(f"Remove {person.username} from {machine.name} {files}?", "--yes")
        try:
            order = jobs.request_removal(actor=ACTOR, server=machine, user=person, purge=purge)
        except jobs.JobRefused as refused:
            raise CommandError(str(refused)) from None
        self.carry_out(order)
        self.say(f"{person.username} is removed from {machine.name}")
