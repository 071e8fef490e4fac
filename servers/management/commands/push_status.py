"""manage.py push_status"""

import json
from argparse import ArgumentParser
from collections import Counter
from typing import Any

from django.core.management.base import CommandError
from django.template.defaultfilters import pluralize

from accounts.services import keys
from servers import disks
from servers.management.terminal import LabCommand
from servers.models import Server
from servers.services.status import key_status, overview
from servers.services.status.key_status import KeyOnServer, KeyStatus, State

MAX_SHOWN = 1000  # keys; use --user for others


class Command(LabCommand):
    help = """Print on which servers the SSH keys are live, and why not on the others.

Only what a server has confirmed counts as live, and a removed key counts as removed only after the
server has confirmed that. Reads the database; connects to no server.

Without options: one line for each server in service, and one for each of its disks that is low.
With --user: each key of this person, with every place (host account, container, register). With
--server: only this server, with its pending keys. --json prints one object: revision, ok, servers,
and keys (with --user all of that person, else the first 1000 with pending changes; only with --user
since when a key is live).

Examples:

    manage.py push_status
    manage.py push_status --user alice
    manage.py push_status --server gpu17 --json

Exit status: 0 no changes are pending; 1 some are, or a server is ahead of the database; 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", default="", metavar="NAME", help="only the keys of this person")
        parser.add_argument("--server", default="", metavar="NAME", help="only this server")
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object")

    def handle(self, *args: Any, user: str, server: str, **options: Any) -> None:
        one = [self.server_in_service(server)] if server else None
        servers = one or key_status.sorted_by_name(Server.objects.all())
        person = self.person(user) if user else None
        statuses = overview.statuses_of(person, servers=servers) if person else key_status.all_statuses(servers=servers)
        report = _Report(servers)
        shown: list[KeyStatus] = []
        for status in statuses:
            if (report.count(status) or user) and len(shown) < MAX_SHOWN:
                shown.append(status)
        if options["json"]:
            self.print_line(json.dumps(report.as_json(shown)))
        else:
            self._print(report, shown if user or server else [], whole=bool(user))
        if report.ahead:
            names = ", ".join(report.ahead)
            raise CommandError(f"Ahead of the database: {names}. See manage.py adopt_server --help.")
        if report.open_keys:
            raise CommandError(
                f"{report.open_keys} of {report.keys} keys pending on {', '.join(sorted(report.first))}."
            )

    def _print(self, report: "_Report", shown: list[KeyStatus], *, whole: bool) -> None:
        for server in report.servers:
            self.print_line(report.line(server))
            for shortage in disks.shortages(server.state.disks):
                self.print_line(f"  warning: low disk: {shortage}")
        for status in shown:
            key = status.key
            self.print_line(f"{key.user.username} {key.fingerprint} {key.comment}".rstrip() + f": {status.summary}")
            for one in status.servers if whole else status.unfinished:
                self.print_line(f"  {one.summary}")
                for place in one.places if whole else ():
                    self.print_line(
                        f"    {place.name}: {place.reason if place.state == State.NOT_REGISTERED else place.state}"
                    )
        if report.is_ok:
            self.print_line(
                f"{report.keys} key{pluralize(report.keys)} live on {key_status.count_servers(len(report.servers))}"
            )


class _Report:
    """The number of keys in each state on each server."""

    def __init__(self, servers: list[Server]) -> None:
        self.states: dict[str, Counter[str]] = {server.name: Counter() for server in servers if server.enabled}
        self.servers = [server for server in servers if server.enabled]
        self.ahead = [server.name for server in self.servers if server.state.ahead_since]
        self.first: dict[str, KeyOnServer] = {}
        self.keys = self.open_keys = 0

    def count(self, status: KeyStatus) -> bool:
        """Count this key; whether it has a pending change on some server."""
        if not status.is_wanted and not status.unfinished:
            return False  # removed everywhere
        self.keys += 1
        for one in status.servers:
            self.states.setdefault(one.server.name, Counter())[one.state] += 1
            if one.is_unfinished:
                self.first.setdefault(one.server.name, one)
        self.open_keys += bool(status.unfinished)
        return bool(status.unfinished)

    @property
    def is_ok(self) -> bool:
        return not self.open_keys and not self.ahead

    def line(self, server: Server) -> str:
        states, first = self.states[server.name], self.first.get(server.name)
        if first is None and server.state.ahead_since:
            return f"{server.name}: ahead of the database, since {key_status.format_time(server.state.ahead_since)}"
        if first is None:
            return f"{server.name}: live, revision {server.state.applied_revision}"
        counts = ", ".join(f"{states[state]} {state}" for state in State if states[state] and state != State.REMOVED)
        return f"{first.summary} ({counts})"

    def as_json(self, shown: list[KeyStatus]) -> dict[str, Any]:
        servers = {}
        for server in self.servers:
            first = self.first.get(server.name)
            numbers = {"revision": server.state.applied_revision, "keys": dict(self.states[server.name])}
            servers[server.name] = numbers | {
                "ok": first is None and server.name not in self.ahead,
                "ahead": server.name in self.ahead,
                "reason": first.summary if first else "",
                "low_disks": disks.shortages(server.state.disks),
            }
        head = {"revision": keys.current_revision(), "ok": self.is_ok, "servers": servers}
        return head | {"keys": [_key(status) for status in shown]}


def _key(status: KeyStatus) -> dict[str, Any]:
    servers = {
        one.server.name: {
            "state": one.state,
            "since": one.since.isoformat() if one.since else None,
            "reason": one.reason,
            "next_retry": one.next_retry.isoformat() if one.next_retry else None,
            "places": {place.name: str(place.state) for place in one.places},
        }
        for one in status.servers
    }
    key = status.key
    names = {"user": key.user.username, "fingerprint": key.fingerprint, "comment": key.comment}
    return {**names, "removed": not status.is_wanted, "summary": status.summary, "servers": servers}
