"""What the commands share: their help format, exit statuses 0, 1 and 2, look-ups and questions."""

import sys
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable
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

    def server_in_service(self, name: str) -> Server:
        server = self.server(name)
        if not server.enabled:
            raise CommandError(f"{name} is out of service; put it into service in the admin.", returncode=USAGE)
        return server

    def person(self, name: str) -> User:
        person = User.objects.filter(username=name.lower()).first()
        if person is None:
            raise CommandError(f"There is no person {name} at the portal.", returncode=USAGE)
        return person

    def run_job(self, request: Callable[..., ContainerJob], done: str, server: str, user: str, **options: Any) -> None:
        """Run the job that `request` queues, or follow the worker; raise CommandError unless it succeeds."""
        try:
            job = request(actor=ACTOR, server=self.server(server), user=self.person(user), **options)
        except jobs.JobRefused as refused:
            raise CommandError(str(refused)) from None
        if not jobs.run_waiting(only=job, report=self.print_line):
            self._follow(job)
        job.refresh_from_db()
        if job.state != ContainerJob.State.SUCCEEDED:
            error = messages.render(job.error) or "The job is not finished yet; see container jobs in the admin."
            raise CommandError(f"{job.server.name}: {error}")
        self.print_line(f"{job.user.username} {done} {job.server.name}")

    def _follow(self, job: ContainerJob) -> None:
        shown, end = 0, time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            job.refresh_from_db()
            lines = job.log.splitlines()
            for line in lines[shown:]:
                self.print_line(line)
            shown = len(lines)
            is_postponed = job.state == ContainerJob.State.QUEUED and job.error is not None
            if job.finished_at is not None or is_postponed:
                return
            time.sleep(0.5)
