"""The portal and its worker as they run in production: gunicorn, the worker with its watchdog, SQLite, the ORM broker."""

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.lab.images import REPOSITORY
from tests.lab.processes import Daemon, wait_for_port
from tests.lab.shell import Completed, run

FIRST_BROWSER_PORT = 8000


class Portal:
    """The servers reach it at `address`, port 80, inside the namespace."""

    def __init__(self, folder: Path, address: str, settings: Mapping[str, str]) -> None:
        self.folder, self.address, self.settings = folder, address, settings
        self.web = Daemon("web", folder)
        self.worker = Daemon("worker", folder)

    @property
    def env(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        return {**kept, **self.settings, "PYTHONUNBUFFERED": "1"}

    def create(self) -> None:
        (self.folder / "data").mkdir(parents=True)
        secret = self.folder / "secret_key"
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_urlsafe(50))
        self.manage("migrate", "--verbosity", "0")

    def manage(self, *arguments: str, check: bool = True, stdin: str = "", timeout: float = 300) -> Completed:
        """Run `manage.py ARGUMENTS` without a terminal."""
        argv = [sys.executable, "manage.py", *arguments]
        return run(argv, env=self.env, cwd=REPOSITORY, check=check, stdin=stdin, timeout=timeout)

    def start(self, outside: socket.socket | None = None) -> None:
        """Start the site and the worker. `outside` is a listening socket that the site serves as well.

        A socket belongs to the network namespace in which it was created: one from before the lab was entered
        lets a browser on this machine in without a route.
        """
        self.start_worker()
        self.start_web(outside)

    def start_web(self, outside: socket.socket | None = None) -> None:
        # gunicorn binds either addresses or descriptors, so the inner address is passed as a descriptor too.
        with socket.create_server((self.address, 80)) as inside:
            descriptors = [part.fileno() for part in (inside, outside) if part is not None]
            argv = [sys.executable, "-m", "gunicorn", "lab_iam.wsgi", "--workers", "2", "--threads", "4"]
            argv += ["--access-logfile", str(self.access_log), "--no-control-socket"]
            argv += [word for number in descriptors for word in ("--bind", f"fd://{number}")]
            self.web.start(argv, env=self.env, cwd=REPOSITORY, pass_fds=descriptors)
        wait_for_port(self.address, 80, self.web.log)

    @property
    def access_log(self) -> Path:
        return self.folder / "access.log"

    def start_worker(self) -> None:
        self.worker.start([sys.executable, "manage.py", "worker"], env=self.env, cwd=REPOSITORY)

    def stop(self) -> None:
        self.web.stop()
        self.worker.stop()


def browser_socket() -> socket.socket:
    """A socket on this machine's loopback for a browser: port 8000, or the next free one."""
    for port in range(FIRST_BROWSER_PORT, FIRST_BROWSER_PORT + 100):
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            continue
    return socket.create_server(("127.0.0.1", 0))
