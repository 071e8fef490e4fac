"""A real PostgreSQL for the tests: in a temporary folder, on a Unix socket; it ends with the process that started it."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.shell import CommandFailed, run

ACCOUNT = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name  # it refuses to run as root
# Safety against power cuts is slow, and these clusters run only for minutes.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "100"}


def programs() -> Path:
    """The programs of the newest installed version. Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if not found:
        raise CommandFailed(["postgres"], "no such program", "Run: apt-get install --no-install-recommends postgresql")
    return found[-1]


@dataclass(frozen=True)
class Postgres:
    """A running cluster. Anyone who can reach the folder of its socket may connect."""

    folder: Path

    def create(self, name: str, template: str = "template1") -> str:
        """Create a database as a copy of `template`. Returns its DATABASE_URL."""
        host = f"--host={self.folder}"
        run([*_as_account(), f"{programs()}/createdb", host, f"--template={template}", name])
        return f"postgres://{ACCOUNT}@/{self.folder}/{name}"

    def parameters(self, url: str) -> dict[str, str]:
        """The same URL in libpq's syntax."""
        return {"host": str(self.folder), "user": ACCOUNT, "dbname": url.rpartition("/")[2]}


@contextlib.contextmanager
def cluster() -> Iterator[Postgres]:
    """A fresh cluster for as long as the context lasts."""
    folder = Path(tempfile.mkdtemp(prefix="lab-iam-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, ACCOUNT, ACCOUNT)
        bin_ = programs()
        # trust: nobody else can reach the socket in this folder
        run([*_as_account(), f"{bin_}/initdb", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8",
             f"--username={ACCOUNT}", f"--pgdata={folder}/data"])  # fmt: skip
        with _server(bin_, folder):
            yield Postgres(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _server(bin_: Path, folder: Path) -> Iterator[None]:
    options = {**FAST, "listen_addresses": "", "unix_socket_directories": str(folder)}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    log = folder / "log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [*_as_account(), f"{bin_}/postgres", "-D", f"{folder}/data", *words],
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=folder,
        )  # fmt: skip
    try:
        _wait_until_ready(bin_, folder, process)
        yield
    finally:
        process.send_signal(2)  # SIGINT: ends without waiting for its clients
        process.wait(20)


def _wait_until_ready(bin_: Path, folder: Path, process: subprocess.Popen[bytes]) -> None:
    asked = [f"{bin_}/pg_isready", "--quiet", f"--host={folder}", "--timeout=10"]
    for _ in range(100):
        if process.poll() is None and subprocess.call(asked) == 0:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    raise CommandFailed(["postgres"], "not ready", (folder / "log").read_text(errors="replace")[-3000:])


def _as_account() -> list[str]:
    """The start of a command line that runs as an unprivileged account and ends with this process."""
    drop = [f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *drop, "--pdeathsig=INT", "--"]
