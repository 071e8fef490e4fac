"""The verbs of labhost: a table of functions and deadlines. Standard error carries the progress of a request."""

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from labhost.protocol.verbs import WrongUse


class Verb(NamedTuple):
    function: str  # "module:function" in labhost, imported when the verb runs: a start does not wait for the others
    seconds: int  # deadline, after which the process ends whatever hangs
    arguments: str
    summary: str


VERBS = {
    "user": Verb("shell.commands:main", 3600, "COMMAND", "a login-shell command, through sudo; arguments on stdin"),
    "register": Verb("admin.commands:register", 1800, "NAME|--stdin|--json", "create a person's account and container"),
    "remove": Verb(
        "admin.commands:remove", 1800, "NAME [--purge] [--yes]", "remove a person; --purge: files, snapshots"
    ),
    "suspend": Verb("admin.portal_requests:suspend", 300, "--json", "end a locked-out person's sessions and container"),
    "revoke": Verb(
        "admin.revocation:revoke", 300, "[--undo] NAME|FINGERPRINT", "revoke keys by hand; --list shows them"
    ),
    "start": Verb("admin.commands:start", 600, "NAME", "start a person's container"),
    "stop": Verb("admin.commands:stop", 600, "NAME", "stop a person's container"),
    "autostart": Verb("admin.commands:autostart", 3600, "[NAME]", "start the containers that ran before a reboot"),
    "doctor": Verb("admin.doctor:main", 3600, "[--fix] [--json]", "check this server; --fix repairs what it can"),
    "status": Verb("admin.portal_requests:status", 60, "", "describe this server (a request of the portal)"),
    "reconcile": Verb("admin.commands:reconcile", 600, "", "mount container files, set port rules, contact the portal"),
    "templates": Verb("admin.commands:templates", 1800, "", "unpack the current template, remove unused ones"),
    "nvidia": Verb("admin.nvidia_report:main", 600, "[VERSION]", "list driver versions, or plan an upgrade to VERSION"),
    "configure": Verb("admin.installation:configure", 600, "KEY=VALUE ...", "write host.conf (for setup-gpu-server)"),
    "state-disk": Verb(
        "admin.state_move:main", 900, "", "move the state to its own file system (for setup-gpu-server)"
    ),
    "check": Verb("admin.installation:check", 600, "", "check that this server is ready for people"),
    "version": Verb("admin.commands:version", 60, "", "print the version"),
}


def main(arguments: Sequence[str]) -> int:
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that goes away does not stop the work
    name = arguments[0] if arguments else ""
    verb = VERBS.get(name)
    if verb is None:
        sys.stderr.write(usage())
        return 0 if name in ("help", "--help") else 2
    if os.geteuid() != 0:
        sys.stderr.write("labhost must run as root\n")
        return 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(verb.seconds)
    try:
        return find(verb)(list(arguments[1:]))
    except WrongUse:
        sys.stderr.write(f"usage: labhost {name} {verb.arguments}".rstrip() + "\n")
        return 2


def find(verb: Verb) -> Callable[[list[str]], int]:
    """The function of a verb, imported now."""
    module, _, function = verb.function.partition(":")
    return cast(Callable[[list[str]], int], getattr(importlib.import_module(f"labhost.{module}"), function))


def usage() -> str:
    lines = [f"  {f'{name} {verb.arguments}':34}{verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(["usage: labhost VERB [ARGUMENT ...]", *lines]) + "\n"
