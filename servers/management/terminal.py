"""What the commands share: their help format, exit statuses 0, 1 and 2, look-ups and questions."""

import sys
import time
from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import User
from servers.models import ContainerJob, Server
from servers.services.containers import jobs

ACTOR = "manage.py"
FAILED, USAGE = 1, 2
WAIT_SECONDS = 600


class LabCommand(BaseCommand):
    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        kwargs.setdefault("formatter_class", RawDescriptionHelpFormatter)
        return super().create_parser(prog_name, subcommand, **kwargs)

    def print_line(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def confirm(self, question: str, option: str) -> None:
        """Ask a yes/no question; raise CommandError unless the answer is yes or if there is no terminal."""
        if not sys.stdin.isatty():
            raise CommandError(f"No terminal to ask on ({question}): use {option}.", returncode=USAGE)
        if input(f"{question} [y/N] ").strip().lower() not in {"y", "yes"}:
            raise CommandError("Nothing was changed.", returncode=FAILED)

    def server(self, name: str) -> Server:
        server = Server.objects.filter(name=name).first()
        if server is None:
            known = ", ".join(Server.objects.values_list("name", flat=True)) or "none yet; see add_server"
            raise CommandError(f"There is no server {name}. Servers: {known}.", returncode=USAGE)
        return server

    def person(self, name: str) -> User:
        person = User.objects.filter(username=name.lower()).first()
        if person is None:
            raise CommandError(f"There is no person {name} at the portal.", returncode=USAGE)
        return person

    def run_job(self, job: ContainerJob) -> None:
        """Run the job here, or follow it if the worker has taken it; raise CommandError unless it succeeds."""
        if not jobs.run_waiting(only=job, tell=self.print_line):
            self._follow(job)
        job.refresh_from_db()
        if job.state != ContainerJob.State.SUCCEEDED:
            raise CommandError(job.error or "The job is not finished yet; see container jobs in the admin.")

    def _follow(self, job: ContainerJob) -> None:
        """Print the job's log as the worker writes it, until the job ends."""
        shown, end = 0, time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            job.refresh_from_db()
            lines = job.log.splitlines()
            for line in lines[shown:]:
                self.print_line(line)
            shown = len(lines)
            if job.finished_at is not None:
                return
            time.sleep(0.5)
