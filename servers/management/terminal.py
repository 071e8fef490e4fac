"""What the commands share: whole helps, exit statuses 0, 1 and 2, no question without a terminal."""

import sys
import time
from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import User
from servers import messages
from servers.models import ContainerJob, Server
from servers.services.containers import jobs

ACTOR = "manage.py"
FAILED, USAGE = 1, 2
WAIT_SECONDS = 600


class LabCommand(BaseCommand):
    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs.setdefault("formatter_class", RawDescriptionHelpFormatter)
        return super().create_parser(prog_name, subcommand, **kwargs)

    def say(self, line: str) -> None:
        """One line of progress, at once."""
        self.stdout.write(line)
        self.stdout.flush()

    def confirm(self, question: str, option: str) -> None:
        """Go on only after a yes. Without a terminal nobody is asked: `option` is the answer to give."""
        if not sys.stdin.isatty():
            raise CommandError(f"Nobody can be asked here ({question}): give {option}.", returncode=USAGE)
        if input(f"{question} [y/N] ").strip().lower() not in {"y", "yes"}:
            raise CommandError("Nothing was changed.", returncode=FAILED)

    def server(self, name: str) -> Server:
        server = Server.objects.filter(name=name).first()
        if server is None:
            known = ", ".join(Server.objects.values_list("name", flat=True)) or "none yet; see add_server"
            raise CommandError(f"There is no server {name}. Known: {known}.", returncode=USAGE)
        return server

    def person(self, name: str) -> User:
        person = User.objects.filter(username=name.lower()).first()
        if person is None:
            raise CommandError(f"The portal knows no person {name}.", returncode=USAGE)
        return person

    def carry_out(self, order: ContainerJob) -> None:
        """Have the order carried out here, or by the worker if that was faster; its progress is shown."""
        if not jobs.run_waiting(only=order, report=self.say):
            self._follow(order)
        order.refresh_from_db()
        if order.state != ContainerJob.State.SUCCEEDED:
            error = messages.render(order.error) or "The job has not finished yet; see Container jobs in the admin."
            raise CommandError(f"{order.server.name}: {error}")

    def _follow(self, order: ContainerJob) -> None:
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
