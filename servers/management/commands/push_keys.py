"""manage.py push_keys"""

import json
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.template.defaultfilters import pluralize

from accounts.services import keys
from servers import messages
from servers.management.terminal import ACTOR, LabCommand
from servers.models import Push, Server
from servers.services.push import runner
from servers.services.worker import full_names

WAIT_SECONDS = 120
OPEN = [Push.State.QUEUED, Push.State.RUNNING]


class Command(LabCommand):
    help = """Push everybody's current SSH keys to the servers now, and print the result.

Without names: to all servers in service. A server that is up to date is skipped, except with
--force, which also makes the server check all its key files. A server that waits for its next retry
is retried now. First the full names are updated from the directory; if it is unavailable, the keys
are pushed all the same.

The worker pushes after every change, and retries failed pushes. Use this command to push by hand
and to see the result. It skips servers that the worker is pushing to at this moment; with --wait it
waits for them.

Examples:

    manage.py push_keys
    manage.py push_keys gpu17 gpu18 --force --wait

Exit status: 0 every selected server is up to date (with --force: and its push succeeded); 1 some are
not; 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="servers (default: all in service)")
        parser.add_argument("--force", action="store_true", help="also push to servers that are up to date")
        parser.add_argument("--wait", action="store_true", help="wait for pushes that the worker is running")
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object")

    def handle(self, *args: Any, force: bool, wait: bool, **options: Any) -> None:
        servers = [self.server_in_service(name) for name in options["names"]] or list(Server.objects.in_service())
        self.is_json = options["json"]
        full_names.refresh(actor=ACTOR)
        forced = runner.request_push(actor=ACTOR, servers=servers) if force else []
        if not force:
            runner.retry_now(servers=servers)
        runner.push_due(actor=ACTOR, servers=servers, report=self._print_push)
        if wait:
            self._wait(servers)
        behind = self._report(servers, forced)
        if behind:
            raise CommandError(f"Not up to date: {', '.join(behind)}.")

    def _print_push(self, push: Push) -> None:
        if not self.is_json:
            seconds = (push.finished_at - push.started_at).total_seconds()  # type: ignore[operator]
            result = messages.render(push.error) or f"{push.written} written, {push.unchanged} unchanged"
            self.print_line(f"{push.server.name}: {push.state}, revision {push.revision}, {result} ({seconds:.1f} s)")

    def _wait(self, servers: list[Server]) -> None:
        end = time.monotonic() + WAIT_SECONDS
        printed = 0
        while time.monotonic() < end:
            count = Push.objects.filter(server__in=servers, state__in=OPEN).count()
            if not count:
                return
            if count != printed and not self.is_json:
                self.print_line(f"Waiting for the worker: {count} push{pluralize(count, 'es')}")
            printed = count
            time.sleep(0.5)

    def _report(self, servers: list[Server], forced: list[Push]) -> list[str]:
        """Print the result; return the names of servers that are not up to date, or whose forced push failed."""
        current = keys.current_revision()
        rows = Server.objects.filter(pk__in=[server.pk for server in servers])
        failed = {push.server_id for push in forced if not _has_succeeded(push)}
        report = {}
        for row in rows:
            is_behind = row.state.held_revision < current or row.state.last_error or row.pk in failed
            error = messages.render(row.state.last_error)
            report[row.name] = {"revision": row.state.applied_revision, "error": error, "ok": not is_behind}
        behind = [name for name, one in report.items() if not one["ok"]]
        if self.is_json:
            self.print_line(json.dumps({"revision": current, "servers": report}))
        else:
            self.print_line(f"{len(rows) - len(behind)} of {len(rows)} server{pluralize(len(rows))} up to date")
        return behind


def _has_succeeded(push: Push) -> bool:
    """Whether this push, or a later retry of it, has succeeded."""
    last = Push.objects.filter(server=push.server_id, pk__gte=push.pk).order_by("pk").last()
    return last is not None and last.state == Push.State.SUCCEEDED
