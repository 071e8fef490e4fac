"""What each login-shell command does. What only some commands need they import themselves: start need not wait."""

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from labhost.container import lifecycle
from labhost.host import Host, User
from labhost.network import forwards
from labhost.protocol.answers import write_answer
from labhost.system import Progress, formatting, log

JSON = "--json"


class Call(NamedTuple):
    """One command with its arguments, from one person. `json`: the answer is for a program."""

    host: Host
    user: User
    progress: Progress
    arguments: tuple[str, ...]

    @property
    def json(self) -> bool:
        return self.arguments == (JSON,)

    @property
    def server(self) -> str:
        return self.host.config.server.name


def without_arguments(work: Callable[[Host, User, Progress], object]) -> Callable[[Call], object]:
    return lambda call: work(call.host, call.user, call.progress)


def status(call: Call) -> None:
    from labhost.shell import status as report

    if call.json:
        answer(**report.collect(call.host, call.user))
    else:
        report.show(call.host, call.user, call.progress)


def top(call: Call) -> None:
    from labhost.shell import top as report

    usage = report.measure(call.host)
    if call.json:
        answer(server=call.server, **report.as_json(usage))
    else:
        _print(call, report.render(usage))


def port(call: Call) -> None:
    if not call.arguments or call.json:
        _list_ports(call)
        return
    server = call.host.config.server
    with lifecycle.locked(call.host, call.user, "being started or stopped") as (user, _):
        if call.arguments[0] == "-d":
            pair = forwards.remove(call.host, user, int(call.arguments[1]))
            text = f"stopped forwarding port {pair.server_port} of {server.name}"
        else:
            inside, *more = (int(word) for word in call.arguments)
            pair = forwards.add(call.host, user, inside, more[0] if more else None)
            text = f"forwarding {server.address}:{pair.server_port} to port {pair.container_port} of your container"
        lifecycle.apply_rules(call.host)
        running = lifecycle.is_running(call.host, user)
    log.write(f"{user.name}: {text}")
    call.progress.write(text)
    if not running:
        call.progress.write(f"next: ssh {call.server}-manage, for the container is stopped")


def _list_ports(call: Call) -> None:
    server, pairs = call.host.config.server, forwards.list_forwards(call.host, call.user)
    if call.json:
        ports = [pair._asdict() for pair in pairs]
        answer(address=server.address, port=call.user.port, limit=server.forwards_each, ports=ports)
        return
    rows: list[tuple[int, int, str]] = [(call.user.port, 22, f"ssh {server.name}")]
    occupied = forwards.occupied()
    for pair in pairs:
        place = f"{server.address}:{pair.server_port}"
        shown = "not forwarded: a program of the server uses it" if pair.server_port in occupied else place
        rows.append((pair.server_port, pair.container_port, shown))
    _print(call, formatting.table((f"port of {server.name}", "port of your container", "address"), rows))
    call.progress.write(f"{len(pairs)} of {server.forwards_each} forwarded; to add: port N, to remove: port -d N")


def snapshot(call: Call) -> None:
    from labhost.container import snapshots

    with call.progress.spinner("snapshot"):
        snapshots.create(call.host, call.user, call.progress, *call.arguments)


def snapshots(call: Call) -> None:
    from labhost.storage import snapshot_store

    found = snapshot_store.list_snapshots(call.host, call.user.subuid)
    if call.json:
        answer(snapshots=[{"name": one.name, "created_at": int(one.created_at), "size": one.size} for one in found])
        return
    heads, size = ("name", "created", "size", "unpacked"), formatting.size
    rows = [(one.name, formatting.moment(one.created_at), size(one.size), size(one.unpacked)) for one in found]
    _print(call, formatting.table(heads, rows) if rows else ["no snapshots yet"])
    call.progress.write(f"next: ssh {call.server}-manage snapshot")


def recover(call: Call) -> None:
    from labhost.container import snapshots
    from labhost.shell import confirm
    from labhost.storage import snapshot_store

    name, code = (*call.arguments, "")[:2]
    snapshot_store.find(call.host, call.user.subuid, name)  # before anything is asked: does it exist?
    warning = f"The snapshot {name} replaces your container. Everything written since then is lost."
    confirm.ask(call.host, call.user.name, f"recover {name}", code, warning, call.progress)
    with call.progress.spinner("recovering"):
        snapshots.recover(call.host, call.user, call.progress, name)


def rebuild(call: Call) -> None:
    from labhost.shell import confirm

    warning = "A new container replaces yours. Everything in yours is lost, your home folder included."
    confirm.ask(call.host, call.user.name, "rebuild", (*call.arguments, "")[0], warning, call.progress)
    with call.progress.spinner("rebuilding"):
        lifecycle.rebuild(call.host, call.user, call.progress)


def console(call: Call) -> None:
    from labhost.shell import console as terminal

    terminal.check(call.host, call.user)
    log.write(f"{call.user.name}: console opened")
    terminal.open_shell(call.host, call.user)


def answer(**values: object) -> None:
    """The only thing on standard output when a program asked; `version` increases when a field changes its meaning."""
    if not write_answer({"version": 1, **values}):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads it; what is left in the buffer goes there


def _print(call: Call, lines: Iterable[str]) -> None:
    for line in lines:
        call.progress.write(line)
