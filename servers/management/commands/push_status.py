"""manage.py push_status"""

import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.core.management.base import CommandError

from accounts.models import User
from accounts.services import keys
from servers.management.terminal import USAGE, LabCommand
from servers.models import Server
from servers.services.status import key_status, overview
from servers.services.status.key_status import KeyOnServer, KeyStatus, State

MAX_SHOWN = 1000  # keys; who wants to know of others asks for their person


class Command(LabCommand):
    help = """Say on which servers the SSH keys are live, and why not on the others.

Only what a server has confirmed counts as live. A removed key is shown as leaving until the server
has confirmed a state without it. Nothing is sent and nobody is asked: this reads the database.

Without options: one line for each server in service. With --user NAME: each key of this person, with
every place (host account, container, register). With --server NAME: this server alone, and the keys
that wait there. --json prints one object: revision, ok, servers, and keys (those of --user, otherwise
the first 1000 that wait somewhere; since when something is live is told with --user only).

Exit status: 0 every key is live on every server (and every removed one gone), 1 something waits,
2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", default="", metavar="NAME", help="the keys of this person only")
        parser.add_argument("--server", default="", metavar="NAME", help="this server only")
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object")

    def handle(self, *args: Any, user: str, server: str, **options: Any) -> None:
        servers = self._servers(server)
        statuses = self._statuses(user, servers)
        report = _Report(servers)
        shown: list[KeyStatus] = []
        for status in statuses:
            if (report.count(status) or user) and len(shown) < MAX_SHOWN:
                shown.append(status)
        if options["json"]:
            self.say(json.dumps(report.as_json(shown)))
        else:
            self._tell(report, shown if user or server else [], whole=bool(user))
        if report.open_keys:
            raise CommandError(f"{report.open_keys} of {report.keys} keys wait on: {', '.join(report.waiting)}.")

    def _servers(self, name: str) -> list[Server]:
        if not name:
            return key_status.sorted_by_name(Server.objects.all())
        chosen = self.server(name)
        if not chosen.enabled:
            raise CommandError(f"{name} is out of service: enable it in the admin.", returncode=USAGE)
        return [chosen]

    def _statuses(self, name: str, servers: list[Server]) -> Iterable[KeyStatus]:
        if not name:
            return key_status.all_statuses(servers=servers)
        person = User.objects.filter(username=name.lower()).first()
        if person is None:
            raise CommandError(f"The portal knows no person {name}.", returncode=USAGE)
        return overview.statuses_of(person, servers=servers)

    def _tell(self, report: "_Report", shown: list[KeyStatus], *, whole: bool) -> None:
        for server in report.servers:
            self.say(report.line(server))
        for status in shown:
            key = status.key
            self.say(f"{key.user.username} {key.fingerprint} {key.comment}".rstrip() + f": {status.words}")
            for one in status.servers if whole else status.open:
                self.say(f"  {one.words}")
                for place in one.places if whole else ():
                    self.say(f"    {place.name}: {place.reason if place.state == State.ABSENT else place.state}")
        if not report.open_keys:
            self.say(f"{report.keys} keys: all are live on {key_status.count_servers(len(report.servers))}")


class _Report:
    """Counts what the keys come to on each server."""

    def __init__(self, servers: list[Server]) -> None:
        self.states: dict[str, Counter[str]] = {server.name: Counter() for server in servers if server.enabled}
        self.servers = [server for server in servers if server.enabled]
        self.first: dict[str, KeyOnServer] = {}
        self.keys = self.open_keys = 0

    @property
    def waiting(self) -> list[str]:
        return sorted(self.first)

    def count(self, status: KeyStatus) -> bool:
        """Whether this key waits somewhere."""
        if not status.is_wanted and not status.open:
            return False  # gone everywhere: the history of keys is not of this report
        self.keys += 1
        for one in status.servers:
            self.states.setdefault(one.server.name, Counter())[one.state] += 1
            if one.state in key_status.OPEN:
                self.first.setdefault(one.server.name, one)
        self.open_keys += bool(status.open)
        return bool(status.open)

    def line(self, server: Server) -> str:
        states, first = self.states[server.name], self.first.get(server.name)
        if first is None:
            return f"{server.name}: live, revision {server.applied_revision}"
        counts = ", ".join(f"{states[state]} {state}" for state in State if states[state] and state != State.GONE)
        return f"{first.words} ({counts})"

    def as_json(self, shown: list[KeyStatus]) -> dict[str, Any]:
        servers = {}
        for server in self.servers:
            first = self.first.get(server.name)
            servers[server.name] = {
                "revision": server.applied_revision,
                "keys": dict(self.states[server.name]),
                **({"ok": True, "reason": ""} if first is None else {"ok": False, "reason": first.words}),
            }
        return {
            "revision": keys.current_revision(),
            "ok": not self.open_keys,
            "servers": servers,
            "keys": [_key(status) for status in shown],
        }


def _key(status: KeyStatus) -> dict[str, Any]:
    servers = {
        one.server.name: {
            "state": one.state,
            "since": one.since.isoformat() if one.since else None,
            "reason": one.reason,
            "next_try": one.next_try.isoformat() if one.next_try else None,
            "places": {place.name: str(place.state) for place in one.places},
        }
        for one in status.servers
    }
    key = status.key
    return {
        "user": key.user.username,
        "fingerprint": key.fingerprint,
        "comment": key.comment,
        "removed": not status.is_wanted,
        "summary": status.words,
        "servers": servers,
    }
