import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from accounts.models import User
from servers.management.terminal import ACTOR, USAGE, LabCommand
from servers.models import Registration
from servers.services import registration

WAIT_SECONDS = 600
State = Registration.State


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
        machine = self.server(server)
        person = User.objects.filter(username=user.lower()).first()
        if person is None:
            raise CommandError(f"The portal knows no person {user}.", returncode=USAGE)
        try:
            order = registration.request(actor=ACTOR, server=machine, user=person)
        except registration.RegistrationRefused as refused:
            raise CommandError(str(refused)) from None
        if not registration.run(only=order, tell=self.say):
            self._follow(order)
        order.refresh_from_db()
        if order.state != State.SUCCEEDED:
            raise CommandError(order.error or "It is not finished yet; see Registrations in the admin.")
        self.say(f"{person.username} has a container on {machine.name}")

    def _follow(self, order: Registration) -> None:
        """Show the log that the worker writes, until it has finished."""
        shown, end = 0, time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            order.refresh_from_db()
            lines = order.log.splitlines()
            for line in lines[shown:]:
                self.say(line)
            shown = len(lines)
            if order.finished_at is not None:
                return
            time.sleep(0.5)
