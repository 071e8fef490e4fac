"""The login-shell commands: one table, from which login.bash and lab-iam.sudoers are generated (entry_points.py).

login.bash runs `labhost user COMMAND` through sudo, with the arguments as one line on standard input. It has checked
that line; here it is checked again, with the same patterns, as if it had not been.
"""

import os
import re
import select
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

from labhost.container import lifecycle
from labhost.errors import BadRequest, Busy, LabhostError, NotRegistered, Refused
from labhost.host import Host, config
from labhost.protocol.verbs import WrongUse, report
from labhost.shell import actions
from labhost.shell.actions import without_arguments
from labhost.system import Progress

FAILED, WRONG_USE, REFUSED, BUSY = 1, 2, 3, 4
STDIN = 0
LINE_MOST = 256
LINE_SECONDS = 5
# Regular expressions that bash and Python read alike. A number is from 1 to 65535, without a leading zero.
NUMBER = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
NAME = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
CODE = "[a-z0-9]{8}"


class Command(NamedTuple):
    """`arguments` is the pattern of all that may follow the name, `help` one line "FORM: SUMMARY" for each form."""

    name: str
    action: Callable[[actions.Call], object]
    arguments: str
    help: str
    seconds: int = 0  # deadline, where it is not that of `labhost user`

    @property
    def takes_json(self) -> bool:
        return actions.JSON in self.arguments

    @property
    def forms(self) -> str:
        """For people who gave wrong arguments, on one line."""
        forms = [line.partition(": ")[0] for line in self.help.splitlines()]
        return " | ".join([*forms, *[f"{self.name} {actions.JSON}"] * self.takes_json])


COMMANDS = (
    Command("start", without_arguments(lifecycle.start), "", "start: start your container (also without a command)"),
    Command("stop", without_arguments(lifecycle.stop), "", "stop: stop it; your files stay"),
    Command("restart", without_arguments(lifecycle.restart), "", "restart: stop and start it"),
    Command("status", actions.status, "( --json)?", "status: show its state, ports, limits and driver"),
    Command("port", actions.port, f"( --json| {NUMBER}( {NUMBER})?| -d {NUMBER})?", """\
port: list your ports on this server
port N: forward a free port of the server to port N of your container (TCP, 1 to 65535)
port N SERVERPORT: the same, with a port of the server that you choose
port -d N: stop forwarding to port N"""),
    Command("snapshot", actions.snapshot, f"( {NAME})?", "snapshot [NAME]: save a snapshot of your container"),
    Command("snapshots", actions.snapshots, "( --json)?", "snapshots: list your snapshots"),
    Command("recover", actions.recover, f" {NAME}( {CODE})?",
            "recover NAME: replace your container by a snapshot (asks first)"),
    Command("rebuild", actions.rebuild, f"( {CODE})?",
            "rebuild: replace your container by a new one from the template (asks first)"),
    Command("console", actions.console, "",
            "console: open a root shell in your container, even if its sshd is broken; needs ssh -t", seconds=86_460),
    Command("top", actions.top, "( --json)?", "top: show who uses the CPUs, memory and GPUs of this server"),
)  # fmt: skip
BY_NAME = {command.name: command for command in COMMANDS}


def main(arguments: list[str]) -> int:
    """`labhost user COMMAND`; the exit status is one of those that the help lists."""
    if len(arguments) != 1 or arguments[0] not in BY_NAME:
        raise WrongUse
    command = BY_NAME[arguments[0]]
    if command.seconds:
        signal.alarm(command.seconds)
    line = read_line() if command.name != "console" else ""  # a console needs standard input itself
    progress = Progress(sys.stderr if line == actions.JSON else sys.stdout)
    return report(lambda: run_command(config.load(), _caller(), command.name, line, progress), progress, exit_status)


def run_command(host: Host, uid: int, name: str, line: str, progress: Progress) -> None:
    """Run one command for the person with this uid; LabhostError."""
    arguments = parse(name, line)
    BY_NAME[name].action(actions.Call(host, lifecycle.find_by_uid(host, uid), progress, arguments))


def parse(name: str, line: str) -> tuple[str, ...]:
    """The arguments of a command; BadRequest."""
    command = BY_NAME.get(name)
    if command is None:
        raise BadRequest("unknown command; for the list, run: help", reason="unknown_command")
    if not re.fullmatch(command.arguments, f" {line}" if line else "", re.ASCII):
        raise BadRequest(f"wrong arguments; usage: {command.forms}", reason="wrong_arguments", command=name)
    return tuple(line.split())


def read_line() -> str:
    """The line that login.bash writes to standard input; it is there at once."""
    ready, _, _ = select.select([STDIN], [], [], LINE_SECONDS)
    data = os.read(STDIN, LINE_MOST + 1) if ready else b""  # a longer one is no command
    return data.decode("ascii", "replace").removesuffix("\n")


def exit_status(error: LabhostError) -> int:
    if isinstance(error, BadRequest):
        return WRONG_USE
    if isinstance(error, Refused | NotRegistered):
        return REFUSED
    return BUSY if isinstance(error, Busy) else FAILED


def _caller() -> int:
    """The uid that sudo vouches for."""
    text = os.environ.get("SUDO_UID", "")
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise Refused("this verb is for people, through their login shell", reason="not_through_sudo")
    return int(text)
