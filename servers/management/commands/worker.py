"""manage.py worker"""

import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from servers.management.terminal import LabCommand
from servers.processes.cluster import Cluster
from servers.services.worker import watchdog


class Command(LabCommand):
    help = """Run the worker, which pushes keys and runs container jobs, until SIGTERM or SIGINT.

The worker is a django-q cluster with a watchdog. The watchdog checks the cluster's heartbeat every
few seconds. If there is none for --silence seconds, or if the cluster exits, the watchdog ends its
processes, starts a new cluster and logs one line. While the database or the broker is unavailable
it does nothing.

On SIGTERM, running tasks get --grace seconds to finish; then they are killed, and the next worker
repeats them. If the watchdog is killed, the whole cluster exits with it.

Example:

    manage.py worker --grace 30

Exit status: 0 stopped by a signal; 1 the cluster keeps failing to start; 2 wrong usage."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--silence", type=float, default=60, metavar="SECONDS", help="longest time without a heartbeat (60)"
        )
        parser.add_argument("--grace", type=float, default=60, metavar="SECONDS", help="time to finish tasks (60)")

    def handle(self, *args: Any, silence: float, grace: float, **options: Any) -> None:
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        limits = watchdog.Limits(silence=max(silence, 1.0), grace=max(grace, 0.0))
        if not watchdog.watch(Cluster(), limits, stopped.is_set):
            raise CommandError("The worker keeps failing to start: see its log.")
