"""`manage.py worker` as a separate process, with the database of the test and the hosts of the farm.

As a program (`python -m tests.servers.real_worker OPTIONS`) it is that worker. Unlike the real one, it logs in to
the hosts as the account that runs the tests, and waits less: between two pushes, and before a retry or a restart.
"""

import getpass
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from django.db import connection

from tests.servers.farm import Farm, is_alive

ROOT = Path(__file__).resolve().parents[2]


def within(seconds: float, is_so: Callable[[], object], what: str = "it") -> float:
    """Wait until `is_so()` is true. Returns the seconds that it took; fails after `seconds`."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < seconds, f"{what} did not come within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


def database_url() -> str:
    """The URL of the database that pytest made for this process."""
    values = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{values['NAME']}"
    return re.sub(r"/[^/]*$", f"/{values['NAME']}", os.environ["DATABASE_URL"])


class RealWorker:
    """As a context manager. `silence` and `grace` are the options of the command."""

    def __init__(self, farm: Farm, folder: Path, *, silence: float = 5, grace: float = 5, **settings: str) -> None:
        self.log_file = folder / "worker.log"
        self.options = ["--silence", str(silence), "--grace", str(grace)]
        self.environment = {
            "PATH": os.environ["PATH"],
            "ENV_FILE": os.devnull,
            "SECRET_KEY": "for-the-tests-only",
            "DATABASE_URL": database_url(),
            "DATA_DIR": str(folder),
            "PORTAL_KEY_FILE": str(farm.iam_key),
            "PYTHONUNBUFFERED": "1",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        group = self.group()
        self.process.kill()
        self.process.wait(20)
        within(10, lambda: not any(map(is_alive, group)), "the end of the whole cluster")

    def start(self) -> None:
        argv = [sys.executable, "-m", "tests.servers.real_worker", *self.options]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                argv, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def log(self) -> str:
        return self.log_file.read_text()

    def restarts(self) -> list[str]:
        return [line for line in self.log().splitlines() if "Restarting the worker" in line]

    def group(self) -> list[int]:
        """The watchdog and its whole cluster."""
        return [self.process.pid, *descendants(self.process.pid)]

    @property
    def main(self) -> int:
        (pid,) = children(self.process.pid)
        return pid

    @property
    def sentinel(self) -> int:
        (pid,) = children(self.main)
        return pid

    def pool(self) -> list[int]:
        """The processes that run tasks, now."""
        ready = [int(pid) for pid in re.findall(r"ready for work at (\d+)", self.log())]
        return [pid for pid in ready if is_alive(pid)]

    def wait_until_ready(self, seconds: float = 30) -> None:
        within(seconds, lambda: len(self.pool()) == 2, "the pool")

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    below = children(pid)
    return below + [deeper for child in below for deeper in descendants(child)]


def main(options: list[str]) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lab_iam.settings")
    import django
    from django.core.management import execute_from_command_line

    django.setup()
    from servers.services import remote
    from servers.services.push import results, runner
    from servers.services.worker import watchdog

    remote.ACCOUNT = getpass.getuser()
    watchdog.PAUSE = 0.02
    runner.SPACING /= 20
    results.BACKOFF_FIRST /= 10
    execute_from_command_line(["manage.py", "worker", *options])


if __name__ == "__main__":
    main(sys.argv[1:])
