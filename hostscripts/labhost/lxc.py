"""LXC's own commands: always as the person, never as root; no input, bounded output, each with a deadline."""

import re
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO

from labhost.errors import LabhostError
from labhost.host import user_state
from labhost.host.config import SUBUID_COUNT, Host
from labhost.system import logind
from labhost.system.names import printable
from labhost.system.processes import Account, Result, run

LOG_NAME = "lab-iam-lxc.log"
LINK_SECONDS = 5.0


@dataclass(frozen=True)
class Info:
    state: str  # RUNNING, STOPPED, STARTING, STOPPING, ... as lxc-info says
    addresses: tuple[str, ...]
    link: str = ""  # the host's end of its network, such as veth1001_abcd

    @property
    def running(self) -> bool:
        return self.state == "RUNNING"


def lxc_path(host: Host, name: str) -> Path:
    """What LXC calls the lxcpath: it holds the container's own folder."""
    return _folders(user_state.home_folder(host, name), name)[0]


def container_folder(host: Host, name: str) -> Path:
    return _folders(user_state.home_folder(host, name), name)[1]


@lru_cache(maxsize=user_state.PATH_CACHE_SIZE)
def _folders(home: Path, name: str) -> tuple[Path, Path]:
    return home / ".local/share/lxc", home / ".local/share/lxc" / name


def enable_linger(account: Account) -> None:
    """Lets the person's user manager come up without a session, and does not wait for it."""
    if not Path("/var/lib/systemd/linger", account.name).exists():
        logind.loginctl("enable-linger", account.name).check("the user manager cannot be started")


def stop_user_manager(account: Account) -> None:
    """Ends the person's user manager with everything below it."""
    logind.loginctl("disable-linger", account.name)
    run(["/usr/bin/systemctl", "stop", f"user@{account.uid}.service"], timeout=90)


def start_user_manager(host: Host, account: Account) -> None:
    """A user manager that outlives the session: containers run in a delegated scope below it."""
    enable_linger(account)
    ready = host.paths.run_user / str(account.uid) / "systemd/private"
    if not ready.exists():
        started = run(["/usr/bin/systemctl", "start", f"user@{account.uid}.service"], timeout=40)
        started.check("the user manager cannot be started")
    deadline = time.monotonic() + 20
    while not ready.exists():
        if time.monotonic() >= deadline:
            raise LabhostError(
                f"the user manager of {account.name} did not come up; see systemctl status user@{account.uid}"
            )
        time.sleep(0.02)


def start(host: Host, account: Account, *, config: Path | None = None, init: Sequence[str] = ()) -> None:
    """Starts the container and returns once its init runs; LabhostError with LXC's own reason.

    `config` and `init` take the place of the container's own file and of its /sbin/init.
    """
    log = _log(host, account)
    log.unlink(missing_ok=True)
    words = [
        "/usr/bin/lxc-start",
        *_which(host, account),
        "--daemon",
        "--logfile",
        str(log),
        "--logpriority",
        "WARN",
        *(["--rcfile", str(config)] if config else []),
        "--",
        *init,
    ]
    deadline = time.monotonic() + LINK_SECONDS
    while not (result := _scoped(host, account, words, timeout=40)).ok:
        reason = last_error(host, account) or result.error_line
        # The monitor of a start that failed just now has not given her one link to the bridge back yet.
        if "Quota reached" not in reason or time.monotonic() >= deadline:
            raise LabhostError(f"the container did not start: {reason}")
        time.sleep(0.2)


def stop(host: Host, account: Account, *, grace: int) -> None:
    """Asks init to stop, after `grace` seconds kills it; with 0 it is not asked."""
    words = ["/usr/bin/lxc-stop", *_which(host, account), *(["--timeout", str(grace)] if grace else ["--kill"])]
    result = run(words, timeout=grace + 20, account=account, env=session_environment(host, account))
    if not result.ok and is_running(host, account):
        raise LabhostError(f"the container did not stop: {result.error_line}")


def attach(
    host: Host,
    account: Account,
    words: Sequence[str],
    *,
    timeout: float,
    stdin: int | IO[bytes] | None = None,
) -> Result:
    """Runs words as root of the container, inside its namespaces. Its output is the container's word."""
    return _scoped(host, account, attach_command(host, account, words), timeout=timeout, stdin=stdin)


def attach_command(host: Host, account: Account, words: Sequence[str], variables: Sequence[str] = ()) -> list[str]:
    """lxc-attach with an environment of these variables (`NAME=value`), PATH and LC_ALL."""
    every = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", *variables)
    settings = [word for variable in every for word in ("--set-var", variable)]
    return ["/usr/bin/lxc-attach", *_which(host, account), "--clear-env", *settings, "--", *words]


def info(host: Host, account: Account) -> Info:
    words = ["/usr/bin/lxc-info", *_which(host, account), "--state", "--ips", "--stats"]
    result = run(words, timeout=15, account=account, env=session_environment(host, account))
    return parse_info(result.out.decode("utf-8", "replace"))


def parse_info(text: str) -> Info:
    pairs = [
        (key.strip(), value.strip())
        for key, colon, value in (line.partition(":") for line in text.splitlines())
        if colon
    ]
    states = [value for key, value in pairs if key == "State"]
    links = [value for key, value in pairs if key == "Link"]
    addresses = tuple(value for key, value in pairs if key == "IP")
    return Info(states[0] if states else "UNKNOWN", addresses, links[0] if links else "")


def is_running(host: Host, account: Account) -> bool:
    """True if the container's monitor listens on its command socket, and it is a process of this person's."""
    address = f"\0{lxc_path(host, account.name)}/{account.name}/command"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(1)
        try:
            peer.connect(address)
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return False
    return bool(struct.unpack("3i", credentials)[1] == account.uid)


def in_id_map(account: Account, subuid: int, words: Sequence[str]) -> list[str]:
    """Words that run as root of the person's id map, but with the host's files and programs."""
    maps = ["-m", f"u:0:{subuid}:{SUBUID_COUNT}", "-m", f"g:0:{subuid}:{SUBUID_COUNT}"]
    return ["/usr/bin/lxc-usernsexec", *maps, "--", *words]


def last_error(host: Host, account: Account) -> str:
    """The last error of LXC's log of this start, in one line; read as the person, because the log is hers."""
    result = run(["/usr/bin/tail", "-c", "16384", "--", str(_log(host, account))], timeout=5, account=account)
    lines = result.out.decode("utf-8", "replace").splitlines()
    errors = [match[1] for line in lines if (match := re.search(r" ERROR +\S+ - \S+ - (.*)", line))]
    return printable(errors[0]) if errors else ""


def _log(host: Host, account: Account) -> Path:
    return host.paths.run_user / str(account.uid) / LOG_NAME


def _which(host: Host, account: Account) -> list[str]:
    return ["--lxcpath", str(lxc_path(host, account.name)), "--name", account.name]


def session_environment(host: Host, account: Account) -> dict[str, str]:
    """How the person's processes find her user manager."""
    return {"XDG_RUNTIME_DIR": str(host.paths.run_user / str(account.uid))}


def scope_command() -> list[str]:
    """Words that put what follows them into a delegated cgroup of the person's user manager."""
    options = ["--user", "--scope", "--quiet", "--collect", "--property", "Delegate=yes"]
    return ["/usr/bin/systemd-run", *options, "--"]


def _scoped(
    host: Host,
    account: Account,
    words: Sequence[str],
    *,
    timeout: float,
    stdin: int | IO[bytes] | None = None,
) -> Result:
    result = run([*scope_command(), *words], timeout=timeout, account=account, env=session_environment(host, account), stdin=stdin)
    return replace(result, words=tuple(words))


def mount_entry(source: str, target: str, *, file: bool = False, read_only: bool = False) -> str:
    """A bind mount; source and target are absolute paths without spaces, as host.conf's reader makes sure."""
    options = "bind,optional," + ("create=file" if file else "create=dir") + (",ro" if read_only else "")
    return f"lxc.mount.entry = {source} {target.lstrip('/')} none {options} 0 0"
