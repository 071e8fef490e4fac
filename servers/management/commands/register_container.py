"""manage.py register_container"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from servers.management.terminal import ACTOR, LabCommand
from servers.services.containers import jobs


class Command(LabCommand):
    help = """Make the container of one person on one server, and show the progress.

This is what the person herself does with `ssh register@SERVER-manage NAME`: account, subordinate
ids, a clone of the template, keys. It can be repeated without harm, and continues a registration
that was interrupted. The person must have signed in to the portal once, because that is when the
port and the ids are issued.

If the worker takes the order first, its progress is shown here all the same. Interrupting this
command with Ctrl-C does not stop what has begun on the server.

Exit status: 0 the container is there, 1 it could not be made (the last line says why), 2 wrong
usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("server", help="a server that add_server knows")
        parser.add_argument("user", help="name of the person")

    def handle(self, *args: Any, server: str, user: str, **options: Any) -> None:
        machine, person = self.server(server), self.person(user)
        try:
            order = jobs.request_registration(actor=ACTOR, server=machine, user=person)
        except jobs.JobRefused as refused:
            raise CommandError(str(refused)) from None
        self.carry_out(order)
        self.say(f"{person.username} has a container on {machine.name}")
