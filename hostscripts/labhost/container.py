"""Start, stop and status of a registered person's container, and the port rules that follow from them."""

import pwd
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any

from . import accounts, files, locks, log, lxc, lxcconfig, network, nvidia, portal, state, storage
from .config import Host
from .errors import LabhostError, NotRegistered, PortalUnavailable
from .progress import Progress
from .run import Account
from .state import User

BANNER_SECONDS = 30
STOP_GRACE = 20
WAIT = 90.0


def by_uid(host: Host, uid: int) -> User:
    """The registered person with this host uid; NotRegistered."""
    for user in state.all_users(host):
        if user.managed and user.uid == uid and accounts.entry_of(host, user) is not None:
            if user.registered:
                return user
            break
    raise NotRegistered(f"you have no container here yet: ssh register@{host.config.name}-manage NAME")


def start(host: Host, user: User, say: Progress) -> None:
    """The seed's "Start the Container". Safe to repeat: a running container stays, its rule is healed."""
    with locks.held(
        host, locks.of_user(user.name), seconds=WAIT, doing=f"{user.name}'s container is starting or stopping"
    ):
        user = _fresh(host, user)
        account = accounts.identity(host, user)
        _refresh_port(host, user, say)
        say.line(f"port: {user.port}")
        write_config(host, user)
        _bring_up(host, account, say)
        user.wanted = "running"
        state.save_user(host, user)
        answered = _wait_for_sshd(host, user, account)
        if answered:
            nvidia.match_inside(host, user, account, say)
        elif not lxc.is_running(host, account):
            raise LabhostError(_end_of(host, account))
        _check_address(host, user, account)
        say.line(f"address: {user.address}")
        apply_rules(host)
        say.line(f"forward: {host.config.address}:{user.port} leads to {user.address}:22")
        if not answered:
            raise LabhostError(
                f"the container runs, but no sshd answered within {BANNER_SECONDS} s; "
                f"try `ssh {host.config.name}`, or `ssh {host.config.name}-manage stop` and start again"
            )
    log.note(f"{user.name}: container started")
    say.line(f"now: ssh {host.config.name}")


def stop(host: Host, user: User, say: Progress) -> None:
    with locks.held(
        host, locks.of_user(user.name), seconds=WAIT, doing=f"{user.name}'s container is starting or stopping"
    ):
        user = _fresh(host, user)
        account = accounts.identity(host, user)
        user.wanted = "stopped"
        state.save_user(host, user)
        apply_rules(host)
        if not lxc.is_running(host, account):
            say.line("the container is stopped already")
        else:
            say.line("stopping the container")
            lxc.stop(host, account, grace=STOP_GRACE)
            log.note(f"{user.name}: container stopped")
            say.line("the container is stopped")
    say.line(f"to start it again: ssh {host.config.name}-manage")


def status(host: Host, user: User, say: Progress) -> None:
    account = accounts.identity(host, user)
    running = lxc.is_running(host, account)
    say.line(f"{user.name} on {host.config.name}: {'running' if running else 'stopped'}")
    say.line(f"port: {user.port}, address: {user.address}")
    say.line(f"driver: {nvidia.host_version(host.config) or 'none'} on the server")
    say.line(f"now: ssh {host.config.name}" if running else f"to start it: ssh {host.config.name}-manage")


def write_config(host: Host, user: User) -> None:
    """The LXC configuration as it must be now; devices may have come since the last start."""
    if not network.belongs(host.config, user.address):
        with locks.held(host, locks.ACCOUNTS, seconds=accounts.WAIT, doing="accounts are being changed"):
            others = [other for other in state.all_users(host) if other.name != user.name]
            user.address = network.address_for(host, user, others)
            state.save_user(host, user)
    path = lxc.folder(host, user.name) / user.name / "config"
    files.write_atomic(path, lxcconfig.render(host, user, nvidia.mounts(host.config)), mode=0o644)


def apply_rules(host: Host) -> None:
    """Rules for the containers that are wanted and run, and for no others."""
    with locks.held(host, locks.RULES, seconds=30, doing="port rules are being set"):
        forwards = [
            network.Forward(user.port, user.address)
            for user in state.all_users(host)
            if user.registered and user.wanted == "running" and _runs(host, user)
        ]
        network.apply_rules(host, forwards)


def inventory(
    host: Host, users: Iterable[User] | None = None, known: Mapping[str, pwd.struct_passwd] | None = None
) -> dict[str, dict[str, Any]]:
    """State, address and port of everybody (or of these) who has, or is about to have, a container here."""
    return {
        user.name: {"state": _state(host, user, known), "address": user.address, "port": user.port}
        for user in (state.all_users(host) if users is None else users)
    }


def _fresh(host: Host, user: User) -> User:
    """The person's file as it is now that the lock is held."""
    now = state.load_user(host, user.name)
    if now is None or not now.registered:
        raise NotRegistered(f"{user.name} has no container here: ssh register@{host.config.name}-manage {user.name}")
    return now


def _refresh_port(host: Host, user: User, say: Progress) -> None:
    """Asks the portal for the port; if it does not answer sensibly, the last known one holds."""
    try:
        port = portal.fetch_port(host.config, user.name)
    except PortalUnavailable as error:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(user.values_at))
        say.line(f"warning: {error}; going on with what was known on {since}")
        return
    holder = next((other.name for other in state.all_users(host) if other.port == port and other.name != user.name), "")
    if holder:
        say.line(f"warning: the portal gave port {port}, which belongs to somebody else here; keeping {user.port}")
        log.note(f"{user.name}: the portal gave port {port} of {holder}", warning=True)
        return
    user.port, user.values_at = port, time.time()


def _bring_up(host: Host, account: Account, say: Progress) -> None:
    if lxc.is_running(host, account):
        say.line("the container runs already")
        return
    say.line("starting the container")
    began = time.monotonic()
    lxc.prepare(host, account)
    lxc.start(host, account)
    say.line(f"the container runs ({time.monotonic() - began:.1f} s)")


def _wait_for_sshd(host: Host, user: User, account: Account) -> bool:
    """True as soon as port 22 of the container greets as SSH does (RFC 4253 section 4.2)."""
    deadline = time.monotonic() + BANNER_SECONDS
    while time.monotonic() < deadline:
        if _greets(user.address):
            return True
        if not lxc.is_running(host, account):
            return False
        time.sleep(0.05)
    return False


def _greets(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1) as peer:
            peer.settimeout(1)
            return peer.recv(4, socket.MSG_WAITALL) == b"SSH-"
    except OSError:
        return False


def _end_of(host: Host, account: Account) -> str:
    reason = lxc.diagnosis(host, account) or "its init ended"
    return f"the container stopped again by itself: {reason}; tell the lab's staff"


def _check_address(host: Host, user: User, account: Account) -> None:
    info = lxc.info(host, account)
    if info.running and user.address not in info.addresses:
        raise LabhostError(
            f"the container has {', '.join(info.addresses) or 'no address'} instead of {user.address}; "
            f"stop and start it: ssh {host.config.name}-manage stop"
        )


def _runs(host: Host, user: User) -> bool:
    return accounts.entry_of(host, user) is not None and lxc.is_running(host, accounts.identity(host, user))


def _state(host: Host, user: User, known: Mapping[str, pwd.struct_passwd] | None) -> str:
    if not user.registered:
        return "registering"
    entry = accounts.entry_of(host, user, known)
    if entry is None or not storage.driver(host).rootfs(user).is_dir():
        return "broken"
    account = Account(user.name, entry.pw_uid, entry.pw_gid, entry.pw_dir)
    return "running" if lxc.is_running(host, account) else "stopped"
