"""C1: many processes sign people in at once, on a database of each kind."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.accounts.first_sign_ins import name_of, password_of
from tests.lab.directory import Directory
from tests.lab.postgres import Postgres

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


class Portal:
    """The portal with a fresh database, for any number of processes."""

    def __init__(self, url: str, **settings: str) -> None:
        self.environment = {
            "PATH": os.environ["PATH"],
            "ENV_FILE": os.devnull,
            "SECRET_KEY": "for-the-tests-only",
            "ALLOWED_HOSTS": "testserver,localhost",
            "DATABASE_URL": url,
            **settings,
        }

    def run(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]


@dataclass(frozen=True)
class Database:
    url: str
    rows: Callable[[str], list[tuple[int, str]]]

    def check(self, names: list[str]) -> None:
        ports = self.rows("SELECT number, username FROM accounts_port ORDER BY number")
        blocks = self.rows("SELECT start, username FROM accounts_subuidrange ORDER BY start")
        assert [number for number, _ in ports] == list(range(22000, 22000 + len(names)))
        assert [start for start, _ in blocks] == list(range(10**9, 10**9 + 65536 * len(names), 65536))
        assert sorted(name for _, name in ports) == sorted(name for _, name in blocks) == sorted(names)


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with empty tables."""
    path = tmp_path_factory.mktemp("empty") / "portal.sqlite3"
    Portal(f"sqlite:///{path}").run("manage.py", "migrate", "--verbosity", "0")
    return path


@pytest.fixture(scope="module")
def empty_database(postgres: Postgres) -> str:
    """The same on PostgreSQL. Returns its name."""
    Portal(postgres.create("empty")).run("manage.py", "migrate", "--verbosity", "0")
    return "empty"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        file = tmp_path / "portal.sqlite3"
        shutil.copyfile(request.getfixturevalue("empty_file"), file)
        return Database(f"sqlite:///{file}", lambda query: sqlite3.connect(file).execute(query).fetchall())
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.create(f"portal_{request.node.originalname}"[:60], request.getfixturevalue("empty_database"))

    def rows(query: str) -> list[tuple[int, str]]:
        with psycopg.connect(**postgres.parameters(url)) as connection:  # type: ignore[arg-type]
            return connection.execute(query.encode()).fetchall()

    return Database(url, rows)


def share(processes: int, each: int) -> list[str]:
    return [name_of(process, number) for process in range(processes) for number in range(each)]


def test_c1_32_processes_x_50_first_sign_ins(database: Database) -> None:
    Portal(database.url).run("-m", "tests.accounts.first_sign_ins", "service", "32", "50")
    database.check(share(32, 50))


def test_c1_no_error_page_when_many_sign_in_at_once(database: Database, slapd: Directory) -> None:
    names = share(32, 4)
    slapd.clear()
    slapd.add_users({name: (f"Person {name}", password_of(name)) for name in names})
    Portal(database.url, **slapd.portal_settings()).run("-m", "tests.accounts.first_sign_ins", "page", "32", "4")
    database.check(names)
