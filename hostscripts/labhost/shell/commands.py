"""The words of the login shell, as `labhost user VERB` gets them from sudo: arguments are one line on stdin.

/public/login.bash has checked that line already; here it is checked again, as if it had not been.
What only some words need they import themselves: whoever starts a container waits for every import.
"""

import os
import re
import select
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from labhost.container import lifecycle
from labhost.errors import BadRequest, Busy, LabhostError, NotRegistered, Refused
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.network import forwards
from labhost.system import formatting, log
from labhost.system.progress import Progress

FAILED, WRONG_USE, REFUSED, BUSY = 1, 2, 3, 4
JSON = "--json"
STDIN = 0
LINE_MOST = 256
LINE_SECONDS = 5
_NUMBER = r"([1-9][0-9]{0,4})"
_NAME = r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})"
_ONCE = r"([a-z0-9]{8})"


@dataclass(frozen=True)
class Call:
    """One word with its arguments, said by one person. `json`: the answer is for a program."""

    host: Host
    user: User
    progress: Progress
    arguments: tuple[str, ...]

    @property
    def json(self) -> bool:
        return self.arguments == (JSON,)


def parse(verb: str, line: str) -> tuple[str, ...]:
    """The arguments, or BadRequest."""
    pattern = GRAMMAR.get(verb)
    match = re.fullmatch(pattern, line, re.ASCII) if pattern is not None else None
    arguments = tuple(line.split(" ")) if line else ()
    if match is None or any(int(word) > 65535 for word in arguments if verb == "port" and word.isdigit()):
        raise BadRequest("unknown command; say help for all of them")
    return arguments


def read_line() -> str:
    """What login.bash wrote to stdin: one short line, there at once."""
    ready, _, _ = select.select([STDIN], [], [], LINE_SECONDS)
    data = os.read(STDIN, LINE_MOST + 1) if ready else b""  # a longer one is no command
    return data.decode("ascii", "replace").removesuffix("\n")


def exit_status(error: LabhostError) -> int:
    if isinstance(error, BadRequest):
        return WRONG_USE
    if isinstance(error, Refused | NotRegistered):
        return REFUSED
    return BUSY if isinstance(error, Busy) else FAILED


def _start(call: Call) -> None:
    lifecycle.start(call.host, call.user, call.progress)


def _stop(call: Call) -> None:
    lifecycle.stop(call.host, call.user, call.progress)


def _restart(call: Call) -> None:
    lifecycle.restart(call.host, call.user, call.progress)


def _status(call: Call) -> None:
    from labhost.shell import status

    if call.json:
        answer(formatting.json_line(**status.collect(call.host, call.user)))
    else:
        status.show(call.host, call.user, call.progress)


def _top(call: Call) -> None:
    from labhost.shell import top

    found = top.measure(call.host)
    if call.json:
        answer(formatting.json_line(server=call.host.config.server.name, **top.as_json(found)))
        return
    for line in top.lines(found):
        call.progress.write(line)


def _port(call: Call) -> None:
    if not call.arguments or call.json:
        _list_ports(call)
        return
    with lifecycle.locked(call.host, call.user, "starting or stopping") as (user, _):
        if call.arguments[0] == "-d":
            gone = forwards.remove(call.host, user, int(call.arguments[1]))
            text = f"port {gone.server_port} of {call.host.config.server.name} leads nowhere now"
        else:
            inside, *more = (int(word) for word in call.arguments)
            pair = forwards.add(call.host, user, inside, more[0] if more else None)
            address = f"{call.host.config.server.address}:{pair.server_port}"
            text = f"{address} leads to port {pair.container_port} of your container"
        lifecycle.apply_rules(call.host)
        running = lifecycle.is_running(call.host, user)
    log.write(f"{user.name}: {text}")
    call.progress.write(text)
    if not running:
        call.progress.write(f"it takes effect when the container runs: ssh {call.host.config.server.name}-manage")


def _list_ports(call: Call) -> None:
    config, pairs = call.host.config, forwards.list_forwards(call.host, call.user)
    if call.json:
        shown = [{"inside": pair.container_port, "outside": pair.server_port} for pair in pairs]
        answer(
            formatting.json_line(
                address=config.server.address, port=call.user.port, most=config.server.forwards_each, ports=shown
            )
        )
        return
    rows: list[tuple[int, int, str]] = [(call.user.port, 22, f"ssh {config.server.name}")]
    rows += [(pair.server_port, pair.container_port, f"{config.server.address}:{pair.server_port}") for pair in pairs]
    for line in formatting.table((f"port of {config.server.name}", "leads to", "reach it by"), rows):
        call.progress.write(line)
    call.progress.write(f"{len(pairs)} of {config.server.forwards_each} used; one more: port N, give back: port -d N")


def _snapshot(call: Call) -> None:
    from labhost.container import snapshots

    with call.progress.spinner("snapshot"):
        snapshots.create(call.host, call.user, call.progress, *call.arguments)


def _snapshots(call: Call) -> None:
    from labhost.storage import snapshot_store

    found = snapshot_store.list_snapshots(call.host, call.user.name)
    if call.json:
        shown = [{"name": one.name, "made": int(one.created_at), "size": one.size} for one in found]
        answer(formatting.json_line(snapshots=shown))
        return
    rows = [
        (one.name, formatting.moment(one.created_at), formatting.size(one.size), formatting.size(one.unpacked))
        for one in found
    ]
    for line in formatting.table(("name", "made", "size", "unpacked"), rows) if rows else ["no snapshots yet"]:
        call.progress.write(line)
    call.progress.write(f"one more: ssh {call.host.config.server.name}-manage snapshot")


def _recover(call: Call) -> None:
    from labhost.container import snapshots
    from labhost.shell import confirm
    from labhost.storage import snapshot_store

    name, word = (*call.arguments, "")[:2]
    snapshot_store.find(call.host, call.user.name, name)  # before anything is asked: is there one?
    what = f"The snapshot {name} takes the place of your container; what was written since is lost."
    confirm.ask(call.host, call.user.name, f"recover {name}", word, what, call.progress)
    with call.progress.spinner("recovering"):
        snapshots.recover(call.host, call.user, call.progress, name)


def _rebuild(call: Call) -> None:
    from labhost.shell import confirm

    what = "A fresh system takes the place of your container; everything in it is lost, your home inside included."
    confirm.ask(call.host, call.user.name, "rebuild", (*call.arguments, "")[0], what, call.progress)
    with call.progress.spinner("rebuilding"):
        lifecycle.rebuild(call.host, call.user, call.progress)


def _console(call: Call) -> None:
    from labhost.shell import console

    console.check(call.host, call.user)
    log.write(f"{call.user.name}: console opened")
    console.open_shell(call.host, call.user)


def answer(document: str) -> None:
    """The only thing on standard output when a program asked."""
    try:
        sys.stdout.write(document + "\n")
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def run_command(host: Host, uid: int, verb: str, line: str, progress: Progress) -> None:
    """Carries out one word for the person with this uid; LabhostError."""
    arguments = parse(verb, line)
    WORDS[verb](Call(host, lifecycle.find_by_uid(host, uid), progress, arguments))


WORDS: Mapping[str, Callable[[Call], None]] = {
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "status": _status,
    "port": _port,
    "snapshot": _snapshot,
    "snapshots": _snapshots,
    "recover": _recover,
    "rebuild": _rebuild,
    "console": _console,
    "top": _top,
}
GRAMMAR: Mapping[str, str] = {
    "start": "",
    "stop": "",
    "restart": "",
    "console": "",
    "status": "(--json)?",
    "top": "(--json)?",
    "port": f"(--json|{_NUMBER}( {_NUMBER})?|-d {_NUMBER})?",
    "snapshot": f"({_NAME})?",
    "snapshots": "(--json)?",
    "recover": f"{_NAME}( {_ONCE})?",
    "rebuild": f"({_ONCE})?",
}
