"""LXC's own commands, always run as the person, never as root: without input, with bounded output and a deadline."""

import re
import struct
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from labhost.errors import LabhostError
from labhost.host import Host, user_state
from labhost.system import Account, Result, logind, printable, run
from labhost.system.processes import Stdin

LOG_NAME = "lab-iam-lxc.log"
LINK_SECONDS = 5.0


class Info(NamedTuple):
    state: str  # RUNNING, STOPPED, STARTING, STOPPING, ... as lxc-info prints it
    addresses: tuple[str, ...]

    @property
    def running(self) -> bool:
        return self.state == "RUNNING"


def container_folder(host: Host, name: str) -> Path:
    return _container_folder(user_state.home_folder(host, name), name)


@lru_cache(maxsize=user_state.PATH_CACHE_SIZE)
def _container_folder(home: Path, name: str) -> Path:
    return home / ".local/share/lxc" / name


def enable_linger(account: Account) -> None:
    """Starts the person's user manager without a session, and does not wait for it."""
    if not Path("/var/lib/systemd/linger", account.name).exists():
        result = logind.loginctl("enable-linger", account.name)
        result.check("the user manager cannot be started", reason="user_manager_not_started")


def stop_user_manager(account: Account) -> None:
    """Ends the person's user manager and everything below it."""
    logind.loginctl("disable-linger", account.name)
    run(["/usr/bin/systemctl", "stop", _service(account)], timeout=90)


def start_user_manager(host: Host, account: Account) -> None:
    """Starts a user manager that outlives the session: containers run in a delegated scope below it."""
    enable_linger(account)
    ready = host.paths.run_user / str(account.uid) / "systemd/private"
    if not ready.exists():
        started = run(["/usr/bin/systemctl", "start", _service(account)], timeout=40)
        started.check("the user manager cannot be started", reason="user_manager_not_started")
    deadline = time.monotonic() + 20
    while not ready.exists():
        if time.monotonic() >= deadline:
            text = f"the user manager of {account.name} did not start; see systemctl status {_service(account)}"
            raise LabhostError(text, reason="user_manager_not_started", command="systemctl", detail="timeout")
        time.sleep(0.02)


def _service(account: Account) -> str:
    return f"user@{account.uid}.service"


def start(
    host: Host, account: Account, *, processes: int = 0, config: Path | None = None, init: Sequence[str] = ()
) -> None:
    """Starts the container and returns once its init runs; LabhostError with LXC's own explanation.

    `processes` bounds what runs in it, see limits.processes. `config` replaces the container's own configuration file,
    `init` its /sbin/init.
    """
    log = _log(host, account)
    log.unlink(missing_ok=True)
    options = ["--daemon", "--logfile", str(log), "--logpriority", "WARN"]
    options += ["--rcfile", str(config)] if config else []
    bound = ["/usr/bin/prlimit", f"--nproc={processes}", "--"] if processes else []
    command = [*bound, *_tool(host, account, "start"), *options, "--", *init]
    deadline = time.monotonic() + LINK_SECONDS
    while not (result := _run(host, account, command, timeout=40, scoped=True)).ok:
        detail = last_error(host, account) or result.error_line
        # The monitor of a start that has just failed may still hold the one link to the bridge that a person has.
        if "Quota reached" not in detail or time.monotonic() >= deadline:
            raise LabhostError(f"the container did not start: {detail}", reason="container_not_started", detail=detail)
        time.sleep(0.2)


def stop(host: Host, account: Account, *, grace: int) -> None:
    """Asks init to stop and kills it after `grace` seconds; with 0 it is killed at once."""
    options = ["--timeout", str(grace)] if grace else ["--kill"]
    result = _run(host, account, [*_tool(host, account, "stop"), *options], timeout=grace + 20)
    if not result.ok and is_running(host, account):
        text = f"the container did not stop: {result.error_line}"
        raise LabhostError(text, reason="container_not_stopped", detail=result.error_line)


def attach(host: Host, account: Account, command: Sequence[str], *, timeout: float, stdin: Stdin = None) -> Result:
    """Runs a command as root of the container, inside its namespaces. Its output is not to be trusted."""
    command = attach_command(host, account, command)
    return _run(host, account, command, timeout=timeout, stdin=stdin, scoped=True)


def attach_command(host: Host, account: Account, command: Sequence[str], variables: Sequence[str] = ()) -> list[str]:
    """lxc-attach with an environment of these variables (`NAME=value`), PATH and LC_ALL."""
    every = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", *variables)
    settings = [argument for variable in every for argument in ("--set-var", variable)]
    return [*_tool(host, account, "attach"), "--clear-env", *settings, "--", *command]


def info(host: Host, account: Account) -> Info:
    result = _run(host, account, [*_tool(host, account, "info"), "--state", "--ips"], timeout=15)
    return parse_info(result.out.decode("utf-8", "replace"))


def parse_info(text: str) -> Info:
    pairs = re.findall(r"^[ \t]*(State|IP)[ \t]*:[ \t]*(.*?)[ \t]*$", text, re.MULTILINE)
    states = [value for key, value in pairs if key == "State"] or ["UNKNOWN"]
    return Info(states[0], tuple(value for key, value in pairs if key == "IP"))


def is_running(host: Host, account: Account) -> bool:
    """True if the container's monitor listens on its command socket, and it is a process of this person's."""
    import socket  # here, since set-keys imports this module, but never calls it

    address = f"\0{container_folder(host, account.name)}/command"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(1)
        try:
            peer.connect(address)
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return False
    return bool(struct.unpack("3i", credentials)[1] == account.uid)


def last_error(host: Host, account: Account) -> str:
    """The first error in LXC's log of the last start, in one line; read as the person, who owns the log."""
    result = run(["/usr/bin/tail", "-c", "16384", "--", str(_log(host, account))], timeout=5, account=account)
    lines = result.out.decode("utf-8", "replace").splitlines()
    errors = [match[1] for line in lines if (match := re.search(r" ERROR +\S+ - \S+ - (.*)", line))]
    return printable(errors[0]) if errors else ""


def session_environment(host: Host, account: Account) -> dict[str, str]:
    """How the person's processes find their user manager."""
    return {"XDG_RUNTIME_DIR": str(host.paths.run_user / str(account.uid))}


def scope_command() -> list[str]:
    """The beginning of a command that runs in a delegated cgroup of the person's user manager."""
    options = ["--user", "--scope", "--quiet", "--collect", "--property", "Delegate=yes"]
    return ["/usr/bin/systemd-run", *options, "--"]


def mount_entry(source: str, target: str, *, file: bool = False, read_only: bool = False) -> str:
    """A bind mount; source and target are absolute paths without spaces, as the parser of host.conf ensures."""
    options = "bind,optional," + ("create=file" if file else "create=dir") + (",ro" if read_only else "")
    return f"lxc.mount.entry = {source} {target.lstrip('/')} none {options} 0 0"


def _log(host: Host, account: Account) -> Path:
    return host.paths.run_user / str(account.uid) / LOG_NAME


def _tool(host: Host, account: Account, name: str) -> list[str]:
    folder = container_folder(host, account.name)
    return [f"/usr/bin/lxc-{name}", "--lxcpath", str(folder.parent), "--name", account.name]


def _run(
    host: Host, account: Account, command: Sequence[str], *, timeout: float, stdin: Stdin = None, scoped: bool = False
) -> Result:
    whole = [*scope_command(), *command] if scoped else command
    result = run(whole, timeout=timeout, account=account, env=session_environment(host, account), stdin=stdin)
    return result._replace(command=tuple(command))
