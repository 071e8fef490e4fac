"""manage.py remove_container"""

from argparse import ArgumentParser
from typing import Any

from servers.management.terminal import LabCommand
from servers.services.containers import jobs


class Command(LabCommand):
    help = """Remove a person's container and host account from a server.

Ends their open sessions, stops the container and closes its port. The files stay on the server,
and the snapshots in its snapshot folder, readable only by root, unless --purge deletes them, together
with files from earlier removals. The
person keeps keys, port and subordinate ids at the portal, and can register again; to prevent that,
lock them out in the admin.

It is safe to repeat, and continues an interrupted removal. If the server does not answer, the worker
retries until it does.

Examples:

    manage.py remove_container gpu17 alice
    manage.py remove_container gpu17 alice --purge --yes

Exit status: 0 removed; 1 not removed yet, the last line says why; 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("server", help="name of the server")
        parser.add_argument("user", help="user name")
        parser.add_argument("--purge", action="store_true", help="also delete the files and snapshots")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, server: str, user: str, purge: bool, yes: bool, **options: Any) -> None:
        row, person = self.server(server), self.person(user)
        if not yes:
            files = "and DELETE all files and snapshots" if purge else "and keep the files and snapshots"
            self.confirm(f"Remove {person.username} from {row.name} {files}?", "--yes")
        self.run_job(jobs.request_removal, "removed from", server, user, purge=purge)
