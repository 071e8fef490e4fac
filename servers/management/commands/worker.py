"""manage.py worker"""

import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from servers.management.terminal import LabCommand
from servers.processes.cluster import Cluster
from servers.services.worker import watchdog


class Command(LabCommand):
    help = """Run the worker: django-q's cluster, which pushes keys and registers containers, and a watchdog
beside it. Runs until it gets SIGTERM or SIGINT.

The watchdog asks the cluster for a sign of life every few seconds. When there is none for --silence
seconds, or when the cluster ends by itself, it ends what is left of it and starts it again, which
it says in one line. While the database or the broker is down it does not judge.

On SIGTERM the tasks that have begun get --grace seconds to finish; then they are killed, and the
next worker does the work again. When the watchdog itself is killed, all of the cluster dies with it.

Exit status: 0 it was told to stop, 1 the cluster keeps failing at start, 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--silence", type=float, default=60, metavar="SECONDS", help="limit of silence (60)")
        parser.add_argument("--grace", type=float, default=60, metavar="SECONDS", help="time to finish tasks (60)")

    def handle(self, *args: Any, silence: float, grace: float, **options: Any) -> None:
        self._is_over = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        limits = watchdog.Limits(silence=max(silence, 1.0), grace=max(grace, 0.0))
        if not watchdog.watch(Cluster(), limits, lambda: self._is_over):
            raise CommandError("The worker keeps failing at start: see its log.")

    def _end(self, *_: object) -> None:
        self._is_over = True
