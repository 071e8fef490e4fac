"""manage.py push_keys"""

import json
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from accounts.services import keys
from servers import messages
from servers.management.terminal import ACTOR, USAGE, LabCommand
from servers.models import Push, Server
from servers.services.push import runner
from servers.services.worker import full_names

WAIT_SECONDS = 120
OPEN = [Push.State.QUEUED, Push.State.RUNNING]


class Command(LabCommand):
    help = """Push the current SSH keys of everybody to the servers, here and now, and say what became
of it.

Without a NAME: to all servers in service. A server that has the latest revision already is left
alone, unless you give --force. One that is waiting for its next try is tried at once. First the
full names are read from the directory; when it does not answer, the keys go out all the same.

The worker does this by itself after each change, and each minute for what is left; use this command
to see it happen. What the worker is serving at this moment is left to it; --wait waits for it too.

Exit status: 0 every chosen server has the latest keys, 1 one has not, 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="servers (all in service)")
        parser.add_argument("--force", action="store_true", help="push also what is applied already")
        parser.add_argument("--wait", action="store_true", help="wait for what the worker is pushing now")
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object")

    def handle(self, *args: Any, force: bool, wait: bool, **options: Any) -> None:
        servers = self._chosen(options["names"])
        self.is_json = options["json"]
        full_names.refresh(actor=ACTOR)
        if force:
            runner.request_push(actor=ACTOR, servers=servers)
        else:
            runner.retry_now(servers=servers)
        runner.push_due(actor=ACTOR, servers=servers, tell=self._tell)
        if wait:
            self._wait(servers)
        behind = self._report(servers)
        if behind:
            raise CommandError(f"Without the latest keys: {', '.join(behind)}.")

    def _chosen(self, wanted: list[str]) -> list[Server]:
        if not wanted:
            return list(Server.objects.filter(enabled=True))
        servers = [self.server(name) for name in wanted]
        for server in servers:
            if not server.enabled:
                raise CommandError(f"{server.name} is out of service: enable it in the admin.", returncode=USAGE)
        return servers

    def _tell(self, push: Push) -> None:
        if not self.is_json:
            seconds = (push.finished_at - push.started_at).total_seconds()  # type: ignore[operator]
            words = messages.render(push.error) or f"{push.written} written, {push.unchanged} unchanged"
            self.say(f"{push.server.name}: {push.state}, revision {push.revision}, {words} ({seconds:.1f} s)")

    def _wait(self, servers: list[Server]) -> None:
        end = time.monotonic() + WAIT_SECONDS
        told = -1
        while time.monotonic() < end:
            still = Push.objects.filter(server__in=servers, state__in=OPEN).count()
            if not still:
                return
            if still != told and not self.is_json:
                self.say(f"Waiting for the worker: {still} servers")
            told = still
            time.sleep(0.5)

    def _report(self, servers: list[Server]) -> list[str]:
        """The names of servers that are not up to date."""
        current = keys.current_revision()
        rows = Server.objects.filter(pk__in=[server.pk for server in servers])
        behind = [row.name for row in rows if row.applied_revision < current or row.last_error]
        if self.is_json:
            report = {
                row.name: {
                    "revision": row.applied_revision,
                    "error": messages.render(row.last_error),
                    "ok": row.name not in behind,
                }
                for row in rows
            }
            self.say(json.dumps({"revision": current, "servers": report}))
        else:
            self.say(f"{len(rows) - len(behind)} of {len(rows)} servers have revision {current}")
        return behind
