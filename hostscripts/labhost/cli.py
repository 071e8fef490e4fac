"""The verbs of labhost. Standard output is the answer, standard error the progress.

What only some verbs need they import themselves: whoever starts a container waits for every import.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from labhost import __version__
from labhost.errors import LabhostError, PortalUnavailable, Refused
from labhost.host import config
from labhost.host.config import Host
from labhost.protocol import answers, frame
from labhost.shell import commands
from labhost.system.names import check_name
from labhost.system.progress import Progress

USAGE = """usage: labhost VERB
  user WORD                a word of the login shell, for the caller's own container (through sudo); its
                           arguments are one line on stdin
  register --stdin|--json  a name on one line, or a framed request; labhost register NAME for staff
  remove NAME [--purge] [--yes]   a person's container and account; --purge: her files as well; --json: a request
  suspend --json           a framed request: sessions and container of somebody who was locked out end
  start NAME, stop NAME    anybody's container (staff)
  autostart [NAME]         starts the containers that ran before a reboot
  doctor [--fix] [--json]  compares this server with its journal and the portal; --fix corrects it
  set-keys                 framed requests, each answered: writes everybody's public keys
  status                   a framed request: what this server is and has
  reconcile                everybody's files attached, port rules as the running containers need them; tells the
                           portal that this server is back
  templates                unpacks the current template, removes those that nothing needs
  nvidia [VERSION]         the driver here and in each container; what another version would touch
  configure KEY=VALUE ...  writes host.conf (used by setup-gpu-server.bash)
  check                    is this server fit?
  version
"""
SECONDS = {  # set-keys counts each of its requests
    "user": 3600,
    "register": 1800,
    "templates": 1800,
    "status": 60,
    "remove": 1800,
    "suspend": 300,
    "autostart": 3600,
    "doctor": 3600,
}


def main(words: Sequence[str]) -> int:
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that goes away does not stop the work
    verb = words[0] if words else ""
    handler = VERBS.get(verb)
    if handler is None:
        sys.stderr.write(USAGE)
        return 0 if verb in ("help", "--help") else 2
    if os.geteuid() != 0:
        sys.stderr.write("labhost must run as root\n")
        return 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS.get(verb, 600))  # nothing here may live for ever, whatever hangs
    return handler(list(words[1:]))


def _user(words: list[str]) -> int:
    if len(words) != 1 or words[0] not in commands.WORDS:
        return _usage()
    verb, progress = words[0], Progress(sys.stdout)
    line = ""
    if verb == "console":
        from labhost.shell import console

        signal.alarm(console.SECONDS + 60)
    else:
        line = commands.read_line()
    if line == commands.JSON:
        progress = Progress(sys.stderr)
    return _for_people(
        lambda: commands.run_command(config.load(), _caller(), verb, line, progress), progress, commands.exit_status
    )


def _caller() -> int:
    """The uid that sudo vouches for."""
    text = os.environ.get("SUDO_UID", "")
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise Refused("this verb is for people, through their login shell")
    return int(text)


def _register(words: list[str]) -> int:
    from labhost.people import registration

    if words == ["--json"]:
        return _for_machines(_register_request)
    if len(words) != 1 or (words[0].startswith("-") and words[0] != "--stdin"):
        sys.stderr.write(USAGE)
        return 2
    progress = Progress(sys.stdout)

    def work() -> None:
        name = check_name(_line() if words[0] == "--stdin" else words[0])
        host = config.load()
        done = registration.register(host, name, progress)
        if not done.created:
            progress.line(f"{name} has a container on {host.config.server.name} already")
        progress.line(f"now: ssh {host.config.server.name}-manage, and then: ssh {host.config.server.name}")

    return _for_people(work, progress)


def _line() -> str:
    data = os.read(0, 256)
    return data.decode("ascii", "replace").removesuffix("\n")


def _register_request(request: dict[str, Any]) -> dict[str, Any]:
    from labhost.people import registration

    (name,) = frame.require(request, user=str)
    done = registration.register(config.load(), check_name(name), Progress(sys.stderr))
    user = done.user
    return {
        "ok": True,
        "user": user.name,
        "created": done.created,
        "port": user.port,
        "address": user.address,
    }


def _remove(words: list[str]) -> int:
    from labhost.admin import commands

    return _for_machines(commands.remove_request) if words == ["--json"] else _by_staff("remove")(words)


def _suspend(words: list[str]) -> int:
    from labhost.admin import commands

    return _for_machines(commands.suspend_request) if words == ["--json"] else _usage()


def _by_staff(name: str) -> Callable[[list[str]], int]:
    """A verb of administrators, a function of staff. Its own exit status counts: 0 done, 1 not, 2 wrong use."""

    def handler(words: list[str]) -> int:
        from labhost.admin import commands

        action: Callable[[list[str], Progress], int] = getattr(commands, name)
        progress, code = Progress(sys.stdout), 0

        def work() -> None:
            nonlocal code
            code = action(words, progress)

        failed = _for_people(work, progress)
        return _usage() if code == commands.WRONG else failed or code

    return handler


def _set_keys(words: list[str]) -> int:
    from labhost.protocol import session

    return session.main() if not words else _usage()


def _status(words: list[str]) -> int:
    return _for_machines(lambda _: status(config.load())) if not words else _usage()


def status(host: Host) -> dict[str, Any]:
    """The answer to `status`. The digest is empty while the last push is not completely written."""
    from labhost.gpu import nvidia
    from labhost.keys import applied_keys
    from labhost.storage.inventory import inventory
    from labhost.system.build import build_digest

    applied = applied_keys.load(host)
    return {
        "ok": True,
        "labhost": __version__,
        "build": build_digest(),
        "name": host.config.server.name,
        "revision": applied.revision,
        "digest": applied.digest if applied.complete else "",
        "driver": nvidia.host_version(host.config),
        "storage": host.config.container.storage,
        "containers": inventory(host),
    }


def _reconcile(words: list[str]) -> int:
    from labhost.container import lifecycle
    from labhost.portal import client

    progress = Progress(sys.stdout)

    def work() -> None:
        host = config.load()
        lifecycle.reconcile(host)
        try:
            client.announce_online(host.config)
        except PortalUnavailable as error:
            progress.line(f"warning: {error}; it will find this server at its next try")

    return _usage() if words else _for_people(work, progress)


def _templates(words: list[str]) -> int:
    from labhost.container import system_swap

    progress = Progress(sys.stdout)
    return _usage() if words else _for_people(lambda: system_swap.refresh_templates(config.load(), progress), progress)


def _nvidia(words: list[str]) -> int:
    from labhost.admin import nvidia_report

    progress = Progress(sys.stdout)
    return _for_people(lambda: nvidia_report.show(config.load(), words, progress), progress)


def _configure(words: list[str]) -> int:
    from labhost.admin import installation

    progress = Progress(sys.stdout)
    return _for_people(lambda: installation.configure(words, progress), progress)


def _check(words: list[str]) -> int:
    from labhost.admin import installation

    progress = Progress(sys.stdout)
    return _usage() if words else _for_people(lambda: installation.check(config.load(), progress), progress)


def _version(words: list[str]) -> int:
    sys.stdout.write(__version__ + "\n")
    return 0


def _usage() -> int:
    sys.stderr.write(USAGE)
    return 2


def _for_people(
    work: Callable[[], None], progress: Progress, status: Callable[[LabhostError], int] = lambda _: 1
) -> int:
    try:
        work()
    except Exception as error:
        refusal = answers.to_refusal(error)
        progress.refusal(str(refusal))
        return status(refusal)
    return 0


def _for_machines(work: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    version = frame.VERSION
    try:
        request = frame.read_request(0)
        version = request["version"]
        answer = answers.of(request, work)
    except Exception as error:
        answer = answers.refusal(error, version)
    return 0 if answers.write_answer(answer) and answer["ok"] else 1


VERBS: dict[str, Callable[[list[str]], int]] = {
    "user": _user,
    "register": _register,
    "set-keys": _set_keys,
    "status": _status,
    "remove": _remove,
    "suspend": _suspend,
    "start": _by_staff("start"),
    "stop": _by_staff("stop"),
    "autostart": _by_staff("autostart_containers"),
    "doctor": _by_staff("run_doctor"),
    "reconcile": _reconcile,
    "templates": _templates,
    "nvidia": _nvidia,
    "configure": _configure,
    "check": _check,
    "version": _version,
}
