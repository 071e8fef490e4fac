"""`./lab bench sync`: the time from a saved key to every server, compared with the time that OpenSSH itself needs."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure, figure, ratio
from tests.bench.floor import Floor
from tests.bench.light import (
    PREFIX,
    LightServer,
    Seed,
    cpu_seconds,
    memory_mb,
    peak_mb,
    remove_all,
    wait_until_listening,
    wire_bytes,
)
from tests.bench.rows import Rows
from tests.lab import images
from tests.lab.lab import ROOT, only_one
from tests.lab.namespace import Namespace
from tests.lab.portal import Portal
from tests.lab.processes import session_members
from tests.lab.shell import run

FOLDER = ROOT / "bench-sync"
HUB = Namespace(f"{PREFIX}-hub")
HUB_ADDRESS = "172.16.4.1"
QUIET = 3.5  # longer than the pause that the worker makes between two pushes to one server


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    say = (lambda text: print(text, file=sys.stderr, flush=True)) if options.json else print
    with only_one("bench-sync"):
        remove_all(FOLDER)
        try:
            result = Bench(options, say).measure()
        finally:
            remove_all(FOLDER)
    if options.json:
        print(json.dumps(result))
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./lab bench sync", description=__doc__)
    parser.add_argument("--servers", type=int, default=16, metavar="N")
    parser.add_argument("--users", type=int, default=1000, metavar="N", help="people with two keys each")
    parser.add_argument(
        "--accounts",
        type=int,
        default=50,
        metavar="N",
        help="people registered on each server, for whom two more files are written (50)",
    )
    parser.add_argument("--runs", type=int, default=7, metavar="N")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(arguments)
    options.accounts = min(options.accounts, options.users)
    return options


class Bench:
    WARM_UPS, EDITS, IDLE_SECONDS = 6, 100, 5.0

    def __init__(self, options: argparse.Namespace, say: Callable[[str], None]) -> None:
        self.options, self.say = options, say
        self.names = [f"user{number:05}" for number in range(options.users)]
        self.here = self.names[: options.accounts]
        self.servers = [LightServer(number, FOLDER) for number in range(options.servers)]
        self.portal = Portal(FOLDER / "portal", HUB_ADDRESS, self._settings())

    def _settings(self) -> dict[str, str]:
        data = FOLDER / "portal/data"
        return {
            "DATA_DIR": str(data),
            "DATABASE_URL": f"sqlite:///{data / 'lab-iam.sqlite3'}",
            "SECRET_KEY_FILE": str(FOLDER / "portal/secret_key"),
            "LOG_LEVEL": "WARNING",
        }

    def measure(self) -> dict[str, Any]:
        o = self.options
        self.say(
            f"{o.servers} servers, {o.users} people with 2 keys; {len(self.here)} of them have an account and a "
            "container's folder on every server. Medians of seconds (lowest - highest)."
        )
        self._make()
        with self._worker():
            figures, counts = self._figures()
        return self._report(figures, counts)

    def _make(self) -> None:
        image = images.server_image()
        FOLDER.mkdir(parents=True)
        HUB.create([f"{HUB_ADDRESS}/16"])
        HUB.enter()
        self.portal.create()
        self.portal.manage("create_portal_key")
        root_key = FOLDER / "root_ed25519"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root_key)])
        iam_key = Path(self.portal.settings["DATA_DIR"]) / "portal_ed25519"
        public = run(["ssh-keygen", "-y", "-f", str(iam_key)]).stdout.strip()
        seed = Seed(FOLDER / "seed", self.here, public, Path(f"{root_key}.pub").read_text())
        seed.make(image)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda server: server.make(image, seed, HUB.name), self.servers))
        wait_until_listening(self.servers)
        self.floor = Floor(self.servers, root_key, seed.host_key, FOLDER)
        self.rows = Rows(self.portal.env, Path(self.portal.settings["DATA_DIR"]) / "lab-iam.sqlite3")
        self.rows.fill(self.names, self.servers, seed.host_key)

    @contextmanager
    def _worker(self) -> Iterator[None]:
        self.portal.start_worker()
        try:
            yield
        finally:
            self.portal.worker.kill()

    def _figures(self) -> tuple[dict[str, Figure], dict[str, Any]]:
        sent: list[int] = []
        self._wake()
        self.rows.wait_for(self.rows.revision())
        self._warm_up()
        self.floor.open()
        runs: dict[str, list[float]] = {}
        # The floor is measured together with each figure, so that other load on the machine slows down both.
        for _ in range(self.options.runs):
            self._note(runs, "floor_cold_s", self.floor.cold)
            self._note(runs, "floor_warm_s", self.floor.warm)
            self._note(runs, "one_change_warm_s", lambda: self._one_change(sent))
        self.floor.close()
        for _ in range(self.options.runs):
            self._note(runs, "floor_cold_s", self.floor.cold)
            self._cut()
            self._note(runs, "one_change_cold_s", lambda: self._one_change([]))
            self._note(runs, "first_full_push_s", self._first_push)
        self._warm_up()
        before = self._key_files()
        for _ in range(self.options.runs):
            self._note(runs, "no_change_pass_s", self._requested)
        counts = {
            "bytes_one_change": int(sorted(sent)[len(sent) // 2]),
            "no_change_files_written": sum(1 for path, now in self._key_files().items() if before.get(path) != now),
            "pushes_per_server_burst": self._burst(),
            "worker_mb": memory_mb(self._processes()),
            "worker_process_peak_mb": peak_mb(self._processes()),
            "worker_idle_cpu_percent": self._idle_cpu(),
        }
        return {name: figure(seconds) for name, seconds in runs.items()}, counts

    def _report(self, figures: dict[str, Figure], counts: dict[str, Any]) -> dict[str, Any]:
        floors = figures["floor_cold_s"].runs  # measured in both rounds
        first, second = figure(floors[: self.options.runs]), figure(floors[self.options.runs :])
        warm = figures["one_change_warm_s"]
        ratios = {
            "one_change_warm_to_cold_floor": (ratio(warm, first), 0.35),
            "one_change_warm_to_warm_floor": (ratio(warm, figures["floor_warm_s"]), 1.5),
            "one_change_cold_to_cold_floor": (ratio(figures["one_change_cold_s"], second), 1.2),
            "first_full_push_to_cold_floor": (ratio(figures["first_full_push_s"], second), 2.0),
        }
        for name, shown in figures.items():
            self.say(f"{name:32} {shown}")
        for name, count in counts.items():
            self.say(f"{name:32} {count}")
        for name, (value, most) in ratios.items():
            self.say(f"{name:32} {value}  at most {most}: {'kept' if value.median <= most else 'MISSED'}")
        return {
            **{name: round(value.median, 4) for name, value in figures.items()},
            **counts,
            "servers": self.options.servers,
            "users": self.options.users,
            "accounts_per_server": len(self.here),
            "runs": self.options.runs,
            "ratios": {name: round(value.median, 3) for name, (value, _) in ratios.items()},
            "spread": {name: [round(part, 4) for part in value.spread] for name, value in figures.items()},
        }

    # -- one measurement each

    def _note(self, runs: dict[str, list[float]], name: str, measure: Callable[[], float]) -> None:
        runs.setdefault(name, []).append(measure())

    def _processes(self) -> list[int]:
        return session_members(self.portal.worker.pid or 0)

    def _idle_cpu(self) -> float:
        seconds = self.IDLE_SECONDS
        time.sleep(QUIET)
        before = cpu_seconds(self._processes())
        time.sleep(seconds)
        return round(100 * (cpu_seconds(self._processes()) - before) / seconds, 1)

    def _cut(self) -> None:
        for server in self.servers:
            server.cut()
        time.sleep(1)

    def _first_push(self) -> float:
        from servers.models import Container, ServerState

        self._cut()
        for server in self.servers:
            server.forget_keys(self.here)
        Container.objects.all().delete()
        os.sync()
        time.sleep(QUIET)
        ServerState.objects.update(
            applied_revision=0,
            applied_digest="",
            attempted_revision=0,
            attempted_at=None,
            attempts=0,
            next_attempt=None,
            unconfirmed_first=None,
            unconfirmed_last=None,
        )
        began = time.monotonic()
        self._wake()
        self.rows.wait_for(self.rows.revision())
        return time.monotonic() - began

    def _wake(self) -> None:
        from servers.services.worker import queue

        queue.enqueue(queue.PUSH)

    def _one_change(self, sent: list[int]) -> float:
        time.sleep(QUIET)
        before = wire_bytes(HUB.name)
        began = time.monotonic()
        self.rows.change(self.here or self.names)
        self.rows.wait_for(self.rows.revision())
        seconds = time.monotonic() - began
        time.sleep(0.2)
        sent.append(wire_bytes(HUB.name) - before)
        return seconds

    def _warm_up(self) -> None:
        """Wait until every process of the worker has its connections."""
        for _ in range(self.WARM_UPS):
            self._one_change([])

    def _requested(self) -> float:
        from servers.models import Server
        from servers.services.push import runner

        time.sleep(QUIET)
        servers = list(Server.objects.all())
        began = time.monotonic()
        runner.request_push(actor="bench", servers=servers)
        self.rows.wait("SELECT count(*) FROM servers_push WHERE state IN ('queued', 'running')", (), 0)
        return time.monotonic() - began

    def _burst(self) -> int:
        from servers.models import Push

        time.sleep(QUIET)
        last = Push.objects.order_by("-pk").values_list("pk", flat=True)[0]
        began = time.monotonic()
        for number in range(self.EDITS):
            time.sleep(max(0.0, began + number * 0.1 - time.monotonic()))
            self.rows.change(self.here or self.names)
        self.rows.wait_for(self.rows.revision())
        rows = Push.objects.filter(pk__gt=last).values_list("server", flat=True)
        return max(list(rows).count(server) for server in set(rows))

    def _key_files(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for server in self.servers:
            for path in server.key_files(self.here):
                status = path.stat()
                found[path] = (status.st_ino, status.st_mtime_ns)
        return found
