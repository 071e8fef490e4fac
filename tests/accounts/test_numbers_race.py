import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.accounts.first_sign_ins import name_of, password_of
from tests.lab.directory import Directory

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


class FilePortal:
    """The portal with a database file of its own, used by as many processes as one likes."""

    def __init__(self, empty: Path, database: Path, **settings: str) -> None:
        shutil.copyfile(empty, database)
        self.database = database
        self.environment = {
            "PATH": os.environ["PATH"],
            "ENV_FILE": os.devnull,
            "SECRET_KEY": "for-the-tests-only",
            "ALLOWED_HOSTS": "testserver,localhost",
            "DATABASE_URL": f"sqlite:///{self.database}",
            **settings,
        }

    def run(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]

    def rows(self, query: str) -> list[tuple[int, str]]:
        with sqlite3.connect(self.database) as connection:
            return connection.execute(query).fetchall()

    def check(self, names: list[str]) -> None:
        ports = self.rows("SELECT number, username FROM accounts_port ORDER BY number")
        blocks = self.rows("SELECT start, username FROM accounts_subuidrange ORDER BY start")
        assert [number for number, _ in ports] == list(range(22000, 22000 + len(names)))
        assert [start for start, _ in blocks] == list(range(10**9, 10**9 + 65536 * len(names), 65536))
        assert sorted(name for _, name in ports) == sorted(name for _, name in blocks) == sorted(names)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all its tables and nothing in them."""
    path = tmp_path_factory.mktemp("empty") / "portal.sqlite3"
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "DEBUG": "true"}
    environment["DATABASE_URL"] = f"sqlite:///{path}"
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
    return path


def share(processes: int, each: int) -> list[str]:
    return [name_of(process, number) for process in range(processes) for number in range(each)]


def test_c1_32_processes_x_50_first_sign_ins_on_sqlite(empty: Path, tmp_path: Path) -> None:
    portal = FilePortal(empty, tmp_path / "portal.sqlite3")
    portal.run("-m", "tests.accounts.first_sign_ins", "service", "32", "50")
    portal.check(share(32, 50))


def test_c1_no_error_page_when_many_sign_in_at_once(empty: Path, slapd: Directory, tmp_path: Path) -> None:
    names = share(32, 4)
    slapd.clear()
    slapd.add_users({name: (f"Person {name}", password_of(name)) for name in names})
    portal = FilePortal(empty, tmp_path / "portal.sqlite3", **slapd.portal_settings())
    portal.run("-m", "tests.accounts.first_sign_ins", "page", "32", "4")
    portal.check(names)
