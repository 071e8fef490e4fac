"""Flows with their steps, and the person and the server for all of them."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.lab.browser import Browser
from tests.lab.lab import PEOPLE, Lab
from tests.lab.machine import Machine

Check = Callable[["Walk"], str]


@dataclass(frozen=True)
class Step:
    """`check` makes the step happen or asserts that it has, and returns a short text of what it saw."""

    number: str
    text: str
    check: Check


@dataclass
class Flow:
    title: str
    steps: list[Step] = field(default_factory=list)

    def step(self, number: str, text: str) -> Callable[[Check], Check]:
        def add(check: Check) -> Check:
            self.steps.append(Step(number, text, check))
            return check

        return add


class Walk:
    """`lqchen` on `gpu17`, as in the document."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.user = "lqchen"
        self.password = PEOPLE[self.user][1]
        self.person = lab.people[self.user]
        self.server: Machine = lab.servers["gpu17"]
        self.browser = Browser(f"http://{lab.portal.address}", "iam.mylab.com")
        self.seen: dict[str, Any] = {}

    @property
    def port(self) -> int:
        return int(self.rows("SELECT number FROM accounts_port WHERE username = ?", self.user)[0][0])

    @property
    def subuid(self) -> int:
        return int(self.rows("SELECT start FROM accounts_subuidrange WHERE username = ?", self.user)[0][0])

    @property
    def rootfs(self) -> str:
        return f"/home/{self.user}/.local/share/lxc/{self.user}/rootfs"

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query of the portal's database, which is read directly."""
        database = sqlite3.connect(f"file:{self.lab.portal.folder}/data/lab-iam.sqlite3?mode=ro", uri=True, timeout=20)
        try:
            return database.execute(query, values).fetchall()
        finally:
            database.close()

    def journal(self, unit: str, pattern: str, server: Machine | None = None) -> list[str]:
        """Lines of a server's journal since its boot that match `pattern` (an extended regular expression)."""
        machine = server or self.server
        done = machine.run(f"journalctl -b -o cat --no-pager {unit} | grep -E -- '{pattern}' || true")
        return done.stdout.splitlines()

    def commands_by(self, account: str, server: Machine | None = None) -> list[str]:
        """The commands that sudo let `account` run, from its log."""
        lines = self.journal("_COMM=sudo", f"^ *{account} : .*COMMAND=", server)
        return [line.partition("COMMAND=")[2].strip() for line in lines]

    def requests_from(self, address: str, path: str) -> list[str]:
        """The portal's access log: requests for `path` by `address` that were answered with 200."""
        lines = self.lab.portal.access_log.read_text().splitlines()
        return [
            line for line in lines if line.startswith(f"{address} ") and f'"GET {path} ' in line and '" 200 ' in line
        ]

    def lxc_info(self, flags: str) -> str:
        """LXC's own output about the container on the server, run as the person."""
        runtime = f"XDG_RUNTIME_DIR=/run/user/$(id -u {self.user})"
        command = f"runuser -u {self.user} -- env {runtime} lxc-info -n {self.user} {flags}"
        return self.server.run(command, check=False).stdout.strip()

    def container_state(self) -> str:
        return self.lxc_info("-sH")


def body(line: str) -> str:
    """Type and blob of a public key line, without its comment."""
    return " ".join(line.split()[:2])
