"""manage.py adopt_server"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.template.defaultfilters import pluralize

from servers.management.terminal import ACTOR, LabCommand
from servers.services.push import revisions
from servers.services.push.revisions import Fingerprints
from servers.services.status import backlog
from servers.ssh.dial import RemoteError


class Command(LabCommand):
    help = """Replace the keys on a server that is ahead of the database by the keys of this database.

After restoring an older database, servers hold revisions that are not in it. The portal then only
removes keys there. It adds none, because a key that was removed since the backup would come back.
A server that reports a revision that it cannot have is treated likewise; other servers are not
affected.

This command asks each server what it holds and prints the differences: keys that will be removed
from the server (-), and keys that will be added (+). Remove keys that should not come back at the
portal first. If you still have the newer database, use that instead.

Without names: all servers in service that are known to be ahead.

Examples:

    manage.py adopt_server
    manage.py adopt_server gpu17 --yes

Exit status: 0 done, or no server is ahead; 1 a server did not answer, or you answered no; 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="servers (default: all that are ahead)")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, names: list[str], yes: bool, **options: Any) -> None:
        servers = [self.server_in_service(name) for name in names] or list(backlog.ahead())
        found, silent = [], []
        for server in servers:
            try:
                found.append(revisions.compare(server))
            except RemoteError as error:
                self.print_line(f"{server.name}: {error}")
                silent.append(server.name)
        found = [one for one in found if not one.is_known]
        if not found and not silent:
            self.print_line("Nothing was changed: no server is ahead of the database.")
        for one in found:
            self._print(one)
        if found and not yes:
            self.confirm(f"Replace the keys on {', '.join(one.server.name for one in found)}?", "--yes")
        changed = [
            one.server.name for one in found if not revisions.adopt(actor=ACTOR, server=one.server, mark=one.mark)
        ]
        if changed or silent:
            texts = [f"The keys on {', '.join(changed)} have changed meanwhile."] if changed else []
            texts += [f"No answer from {', '.join(silent)}."] if silent else []
            raise CommandError(f"{' '.join(texts)} Run this again.")

    def _print(self, one: revisions.Differences) -> None:
        removed, added = one.counts()
        keys = f"{removed} key{pluralize(removed)} to remove, {added} to add"
        self.print_line(f"{one.server.name}: revision {one.revision}, {keys}")
        self._print_keys("-", one.surplus)
        self._print_keys("+", one.lacking)

    def _print_keys(self, sign: str, keys: Fingerprints) -> None:
        for name in sorted(keys):
            for fingerprint in keys[name]:
                self.print_line(f"  {sign} {name} {fingerprint}")
