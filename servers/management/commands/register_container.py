"""manage.py register_container"""

from argparse import ArgumentParser
from typing import Any

from servers.management.terminal import LabCommand
from servers.services.containers import jobs


class Command(LabCommand):
    help = """Register a person on a server: create their host account and container.

Does the same as `ssh register@SERVER-manage NAME` by the person: account, subordinate ids, container
from the template, keys. It is safe to repeat, and continues an interrupted registration. The person
must have signed in to the portal once, to have a port and subordinate ids.

The progress is printed, also if the worker runs the job. Ctrl-C does not stop a job that has started
on the server.

Example:

    manage.py register_container gpu17 alice

Exit status: 0 registered; 1 failed, the last line says why; 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("server", help="name of the server")
        parser.add_argument("user", help="user name")

    def handle(self, *args: Any, server: str, user: str, **options: Any) -> None:
        self.run_job(jobs.request_registration, "registered on", server, user)
