"""The verbs for the server's administrators, who are root: check the arguments, ask, act."""

import os
import sys
from contextlib import suppress

from labhost import __version__
from labhost.admin import portal_requests
from labhost.container import lifecycle
from labhost.errors import PortalUnavailable, Refused
from labhost.host import config, state_disk, user_state
from labhost.keys import revoked
from labhost.portal import client
from labhost.protocol.verbs import WrongUse, for_people
from labhost.system import Progress, check_name


def register(arguments: list[str]) -> int:
    """For staff (NAME), for the account `register` (--stdin: the name on one line) and for the portal (--json)."""
    if arguments == portal_requests.JSON:
        return portal_requests.register(arguments)
    return _register(arguments)


@for_people(1, 1)
def _register(arguments: list[str], progress: Progress) -> None:
    from labhost.people import registration

    name = arguments[0]
    if name.startswith("-") and name != "--stdin":
        raise WrongUse
    if name == "--stdin":
        name = os.read(0, 256).decode("ascii", "replace").removesuffix("\n")
    name = check_name(name)
    host = config.load()
    server = host.config.server.name
    if not registration.register(host, name, progress).created:
        progress.write(f"{name} already has a container on {server}")
    progress.write(f"next: ssh {server}-manage to start it, then ssh {server}")


def remove(arguments: list[str]) -> int:
    return portal_requests.remove(arguments) if arguments == portal_requests.JSON else _remove(arguments)


@for_people()
def _remove(arguments: list[str], progress: Progress) -> None:
    from labhost.people import removal

    options = {argument for argument in arguments if argument.startswith("--")}
    names = [argument for argument in arguments if argument not in options]
    if len(names) != 1 or not options <= {"--purge", "--yes"}:
        raise WrongUse
    name, purge = check_name(names[0]), "--purge" in options
    if "--yes" not in options:
        files = "delete all files and snapshots" if purge else "keep the files and snapshots"
        _confirm(f"Remove the container and account of {name}, and {files}?")
    removed = removal.remove(config.load(), name, progress, purge=purge)
    progress.write(f"removed {name}; files kept in: {', '.join(removed.kept_folders) or 'none'}")


@for_people(0, 1)
def autostart(arguments: list[str], progress: Progress) -> None:
    """One person's container, or all that should be running."""
    from labhost.container import autostart

    host = config.load()
    if arguments:
        autostart.start_one(host, check_name(arguments[0]), progress)
    else:
        autostart.start_all(host, progress)


@for_people(1, 1)
def start(arguments: list[str], progress: Progress) -> None:
    lifecycle.start(*_registered(arguments), progress)


@for_people(1, 1)
def stop(arguments: list[str], progress: Progress) -> None:
    lifecycle.stop(*_registered(arguments), progress)


@for_people(0, 0)
def reconcile(arguments: list[str], progress: Progress) -> None:
    """At boot and each minute: mounts, port rules, and a message to the portal that this server is online."""
    host = config.load()
    with suppress(OSError):  # a finding of doctor
        state_disk.keep_allocated(host.paths.state)
    lifecycle.reconcile(host)
    try:
        client.announce_online(host.config, revoked=bool(revoked.load(host)))
    except PortalUnavailable as error:
        progress.write(f"warning: {error}; the portal will find this server at its next retry")


@for_people(0, 0)
def templates(arguments: list[str], progress: Progress) -> None:
    from labhost.admin import state_move
    from labhost.container import system_swap

    host = config.load()
    if state_disk.image_of(host.paths.state).exists():
        state_move.move_large(host.paths.state)  # a new archive that was moved onto the image
    system_swap.refresh_templates(host, progress)


@for_people(0, 0)
def version(arguments: list[str], progress: Progress) -> None:
    progress.write(__version__)


def _registered(arguments: list[str]) -> tuple[config.Host, user_state.User]:
    host = config.load()
    return host, user_state.find_registered(host, check_name(arguments[0]))


def _confirm(question: str) -> None:
    """Refused unless somebody at a terminal says yes."""
    if not os.isatty(0):
        raise Refused("confirmation needs a terminal; to skip the question, add --yes", reason="no_terminal")
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed; nothing was changed", reason="not_confirmed")
