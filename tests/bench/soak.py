"""`./lab bench soak`: many servers with real sshds, some of them down or silent, for a long time.

This process is the worker, so that its memory can be measured alone.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.bench import enemy
from tests.servers.farm import Farm
from tests.servers.silence import Silence

SILENT_SHARE, PEOPLE, WIDTH = 0.05, 100, 10
QUARTERS = 4
PATIENCE = 300.0


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    say = (lambda text: print(text, file=sys.stderr, flush=True)) if options.json else print
    if options.enemy:
        return enemy.main(options, say)
    with tempfile.TemporaryDirectory(prefix="lab-iam-soak-") as folder:
        result = _measure(Path(folder), options, say)
    if options.json:
        print(json.dumps(result))
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./lab bench soak", description=__doc__)
    parser.add_argument("--servers", type=int, default=200, metavar="N", help="5 %% of them are down or silent (200)")
    parser.add_argument("--passes", type=int, default=1000, metavar="N", help=f"passes, each to {WIDTH} servers (1000)")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="measured changes to all servers (5)")
    parser.add_argument(
        "--enemy", action="store_true", help="instead: a container that attacks its server, for a while"
    )
    parser.add_argument("--minutes", type=float, default=30, metavar="N", help="how long the enemy goes on (30)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser.parse_args(arguments)


def _measure(folder: Path, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    bad = round(options.servers * SILENT_SHARE)
    farm = Farm(folder, [f"127.0.{1 + number // 200}.{1 + number % 200}" for number in range(options.servers)])
    with ExitStack() as stack:
        stack.callback(farm.stop)
        farm.start()
        farm.reset()
        _portal(folder, farm)
        silent = [stack.enter_context(Silence()).address for _ in range(bad)]
        soak = Soak(farm, silent)
        say(f"{options.servers} servers, {bad} of them down or silent; {PEOPLE} people with 2 keys. Seconds until")
        say("the last of the others has a change:")
        with soak.worker():
            cold = soak.push_all()
            say(f"  the first push, with no connection open   {cold:6.2f}")
            warm = [soak.change() for _ in range(options.runs)]
            say(
                f"  one change (median of {options.runs})                 {statistics.median(warm):6.2f}  worst {max(warm):.2f}"
            )
        began = time.monotonic()
        soak.passes(options.passes // 10)  # what is loaded or cached at the start is not counted
        memory = [memory_mb()]
        say(f"memory of the worker: {memory[0]:.1f} MB")
        for quarter in range(1, QUARTERS + 1):
            soak.passes(options.passes // QUARTERS)
            memory.append(memory_mb())
            say(f"  after {options.passes // QUARTERS * quarter} more passes: {memory[-1]:.1f} MB")
        return {
            "servers": options.servers,
            "servers_bad": bad,
            "first_push_cold_s": round(cold, 3),
            "one_change_warm_s": round(statistics.median(warm), 3),
            "one_change_warm_worst_s": round(max(warm), 3),
            "passes": options.passes,
            "passes_s": round(time.monotonic() - began, 1),
            "memory_mb": [round(size, 1) for size in memory],
        }


def _portal(folder: Path, farm: Farm) -> None:
    """The portal's settings and tables, in this process."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "lab_iam.settings",
        "ENV_FILE": os.devnull,
        "SECRET_KEY": "for-the-bench-only",
        "DATA_DIR": str(folder / "data"),
        "DATABASE_URL": f"sqlite:///{folder}/soak.sqlite3",
        "PORTAL_KEY_FILE": str(farm.iam_key),
        "LOG_LEVEL": "ERROR",
    }
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from servers.services import remote

    remote.ACCOUNT = farm.user


class Soak:
    def __init__(self, farm: Farm, silent: list[tuple[str, int]]) -> None:
        from accounts.models import User
        from accounts.services import numbers
        from servers.models import Server

        self._dice = random.Random(200)
        self._users = [User.objects.create_user(f"user{number:03}") for number in range(PEOPLE)]
        for user in self._users:
            numbers.assign(user)
            self._add_key(user)
            self._add_key(user)
        for number, address in enumerate(farm.addresses):
            fields: dict[str, Any] = {"address": address, "ssh_port": farm.port, "host_key": farm.host_key}
            if number < len(silent):
                self._spoil(farm, number, fields, silent[number])
            Server.objects.create(name=f"gpu{number:03}", **fields)
        self._good = list(Server.objects.order_by("name")[len(silent) :])

    def _spoil(self, farm: Farm, number: int, fields: dict[str, Any], silent: tuple[str, int]) -> None:
        """In turn: refuses connections, sends nothing, hangs in the middle of the request."""
        match number % 3:
            case 0:
                fields["address"] = f"127.0.9.{1 + number}"
            case 1:
                fields["address"], fields["ssh_port"] = silent
            case 2:
                farm.behave(farm.addresses[number], "mute")

    def _add_key(self, user: Any) -> None:
        from accounts.services import keys
        from tests.accounts.keys import as_line

        keys.add_keys(actor="soak", user=user, pasted=as_line("ssh-ed25519", self._dice.randbytes(32)))

    def _change_one(self) -> None:
        from accounts.services import keys

        user = self._dice.choice(self._users)
        active = user.ssh_keys.active()
        if active.count() > 4:
            keys.revoke_key(actor="soak", key=active[0])
        else:
            self._add_key(user)

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Run pushes as the worker does: two runs at once, as it has two processes."""
        from servers.services.push import runner

        is_over = threading.Event()

        def work() -> None:
            while not is_over.wait(0.1):
                runner.push_due(actor="soak")

        threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            from servers.models import Server

            # no push is due any more, so that the runs end
            Server.objects.exclude(pk__in=[server.pk for server in self._good]).update(enabled=False)
            for thread in threads:
                thread.join()

    def change(self) -> float:
        from servers.services.push import runner

        time.sleep(runner.SPACING.total_seconds() + 0.5)
        self._change_one()
        return self.push_all()

    def push_all(self) -> float:
        """Wait until every working server has confirmed the latest keys. Returns the seconds."""
        from accounts.services import keys
        from servers.models import ServerState

        began, revision = time.monotonic(), keys.current_revision()
        good = ServerState.objects.filter(pk__in=[server.pk for server in self._good])
        while good.filter(applied_revision__lt=revision).exists():
            if time.monotonic() - began > PATIENCE:
                errors = good.filter(last_error__isnull=False).values_list("last_error", flat=True)[:3]
                raise TimeoutError(f"not pushed within {PATIENCE:.0f} s: {list(errors)}")
            time.sleep(0.02)
        return time.monotonic() - began

    def passes(self, count: int) -> None:
        """Repeat a change and a push to some of the servers, all of them in turn."""
        from servers.models import ServerState
        from servers.services.push import runner

        for number in range(count):
            self._change_one()
            first = number * WIDTH % len(self._good)
            chosen = self._good[first : first + WIDTH]
            ServerState.objects.filter(pk__in=[server.pk for server in chosen]).update(attempted_at=None)  # no pause
            runner.push_due(actor="soak", servers=chosen)


def memory_mb() -> float:
    """Resident memory of this process."""
    with suppress(ImportError):
        import ctypes
        import gc

        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # freed memory is no leak
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
