"""Starts and stops a person's container, and sets the port rules that follow."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labhost import lxc
from labhost.accounts import linux_accounts
from labhost.container import lxc_config, system_swap
from labhost.errors import LabhostError, NotRegistered, PortalUnavailable, Refused
from labhost.gpu import nvidia
from labhost.host import Host, User, disk_space, limits, locks, suspensions, user_state
from labhost.keys import applied_keys, ownership, withheld
from labhost.network import addresses, bridges, dhcp, firewall, flows, forwards, guard
from labhost.portal import client
from labhost.storage import drivers, quota
from labhost.system import Account, Progress, failpoints, files, formatting, log

BANNER_SECONDS = 20
STOP_GRACE = 20
LOCK_SECONDS = 90.0


def find_by_uid(host: Host, uid: int) -> User:
    """The registered person with this host uid; NotRegistered."""
    for user in user_state.all_users(host):
        if user.registered and user.uid == uid and linux_accounts.passwd_entry(host, user) is not None:
            return user
    server = host.config.server.name
    text = f"you have no container on {server} yet: ssh register@{server}-manage NAME"
    raise NotRegistered(text, reason="no_container", server=server)


@contextmanager
def locked(host: Host, user: User, doing: str) -> Iterator[tuple[User, Account]]:
    """Holds the person's lock; gives their state, read again under it, and their account. Busy or NotRegistered."""
    with locks.user(host, user.name, seconds=LOCK_SECONDS, doing=doing):
        now = user_state.find_registered(host, user.name)
        yield now, linux_accounts.account_of(host, now)


def start(host: Host, user: User, progress: Progress, *, only_if_wanted: bool = False) -> None:
    """Starts the container. Safe to repeat: a running container goes on, its port rules are repaired.

    With `only_if_wanted` nothing is done if the person has stopped it.
    """
    with locked(host, user, "being started or stopped") as (user, account):
        if only_if_wanted and user.desired_state != "running":
            return
        refuse_suspended(host, user.name)
        _refresh(host, user, progress)
        progress.write(f"port: {user.port}")
        if warning := disk_space.warning(host):
            progress.write(f"warning: {warning}")
        lxc.start_user_manager(host, account)  # first: its cgroup shows which limits this server can enforce
        with quota.some_room(host, user, account):
            write_config(host, user)
            system_swap.prepare(host, user, account, progress)
        failpoints.hit("start:configured")
        _bring_up(host, user, account, progress)
        failpoints.hit("start:up")
        user.desired_state = "running"
        user_state.save_user(host, user)
        failpoints.hit("start:noted")
        # While it boots: LXC itself set the address, before its init ran.
        _check_address(host, user, account)
        apply_rules(host)
        failpoints.hit("start:ruled")
        answered = _finish_boot(host, user, account, progress)
        progress.write(f"address: {user.address}")
        failpoints.hit("start:answered")
        progress.write(f"forwarding: {host.config.server.address}:{user.port} to {user.address}:22")
        if not answered:
            raise _no_sshd(host)
        progress.write(f"next: ssh {host.config.server.name}")
        system_swap.commit(host, user, account)
    log.write(f"{user.name}: container started")


def refuse_suspended(host: Host, name: str) -> None:
    """Refused until a push of keys has ended the person's suspension."""
    if not suspensions.is_suspended(host, name):
        return
    withheld.release_due(host)
    if suspensions.is_suspended(host, name):
        text = f"{name} is suspended here; ask the lab's staff to unlock the account at the portal"
        raise Refused(text, reason="suspended", name=name)


def _finish_boot(host: Host, user: User, account: Account, progress: Progress) -> bool:
    """True if sshd answers, with the driver installed; LabhostError if the container stopped."""
    with progress.spinner("waiting for its sshd"):
        answered = _wait_for_sshd(host, user, account)
    if answered:
        nvidia.install_matching_driver(host, user, account, progress)
    elif not lxc.is_running(host, account):
        detail = lxc.last_error(host, account) or "its init ended"
        text = f"the container stopped again by itself: {detail}; tell the lab's staff"
        stopped = LabhostError(text, reason="container_stopped", detail=detail)
        raise _roll_back(host, user, account, stopped)
    return answered


def stop(host: Host, user: User, progress: Progress) -> None:
    with locked(host, user, "being started or stopped") as (user, account):
        if not halt(host, user, account, progress):
            progress.write("the container was already stopped")
    progress.write(f"next: ssh {host.config.server.name}-manage to start it")


def halt(host: Host, user: User, account: Account, progress: Progress) -> bool:
    """Removes the rules, then stops the container; False if it was not running. The person's lock is held."""
    user.desired_state = "stopped"
    user_state.save_user(host, user)
    failpoints.hit("stop:noted")
    apply_rules(host)
    failpoints.hit("stop:ruled")
    if not lxc.is_running(host, account):
        return False
    progress.write("stopping the container")
    with progress.spinner("stopping the container"):
        lxc.stop(host, account, grace=0 if user.needs_provisioning else STOP_GRACE)
    flows.forget(user.address)
    failpoints.hit("stop:down")
    log.write(f"{user.name}: container stopped")
    progress.write("container stopped")
    return True


def rebuild(host: Host, user: User, progress: Progress) -> None:
    """A new root file system from the current template. Nothing of the old one survives except snapshots."""
    with locked(host, user, "being rebuilt") as (user, account):
        driver = drivers.driver_of(host, user)
        driver.attach(user, account)
        driver.remove_leftovers(user, account)
        driver.check()
        with quota.some_room(host, user, account):
            system = driver.create_fresh(user, account)
        halt(host, user, account, progress)
        system_swap.swap(host, user, account, system)
    log.write(f"{user.name}: container rebuilt")
    progress.write("container rebuilt; your old one is kept until the first successful start")
    progress.write(f"it has new SSH host keys: ssh-keygen -R {host.config.server.name}")
    progress.write(f"next: ssh {host.config.server.name}-manage to start it")


def restart(host: Host, user: User, progress: Progress) -> None:
    stop(host, user, progress)
    start(host, user, progress)


def write_config(host: Host, user: User) -> None:
    """Writes the LXC configuration; there may be new devices since the last start."""
    if not addresses.in_network(host.config, user.address):
        with locks.accounts(host):
            others = [other for other in user_state.all_users(host) if other.name != user.name]
            user.address = addresses.address_for(host, user, others)
            user_state.save_user(host, user)
    files.write_atomic(config_file(host, user), config_text(host, user), mode=0o644)
    dhcp.reserve(host, user)


def config_file(host: Host, user: User) -> Path:
    return lxc.container_folder(host, user.name) / "config"


def config_text(host: Host, user: User) -> str:
    extra = limits.render(user.limits, limits.controllers(host, user))
    return lxc_config.render(host, user, [*extra, *nvidia.mounts(host.config, limits.gpus(user))])


def apply_rules(host: Host) -> None:
    """Sets rules for the containers that should run and do, and for no others."""
    with locks.rules(host):
        firewall.apply_rules(host, wanted_rules(host))


def wanted_rules(host: Host) -> list[firewall.Forward]:
    """What the port rules must be now. A port on which the server listens by now is the server's again."""
    found, occupied = [], forwards.occupied()
    for user in user_state.all_users(host):
        if user.registered and user.desired_state == "running" and is_running(host, user):
            pairs = [pair for pair in forwards.list_forwards(host, user) if pair.server_port not in occupied]
            pairs.append(forwards.ForwardedPort(22, user.port))
            found += [firewall.Forward(pair.server_port, user.address, pair.container_port) for pair in pairs]
    return found


def wanted_bridges(host: Host) -> list[bridges.Bridge]:
    """Everybody's, but not while a container runs without: it is on the shared bridge of an earlier version."""
    return [
        bridges.bridge_of(host, user)
        for user in user_state.all_users(host)
        if user.managed and user.address and not user.removal
        if bridges.exists(host, bridges.name_of(user)) or not is_running(host, user)
    ]


def apply_bridges(host: Host) -> None:
    """Makes and corrects everybody's bridge and the filters of what comes from there."""
    with locks.rules(host):
        guard.apply(host)
        wanted = wanted_bridges(host)
        bridges.converge(host, wanted)
    for bridge in wanted:
        bridges.allow_hairpin(host, bridge.name)


def reconcile(host: Host) -> None:
    """Repairs mounts, bridges, port rules and DHCP reservations, and ends suspensions: at boot and each minute."""
    withheld.release_due(host)
    system_swap.attach_all(host)
    apply_rules(host)
    apply_bridges(host)
    dhcp.keep_only(host, (user.name for user in user_state.all_users(host)))


def _refresh(host: Host, user: User, progress: Progress) -> None:
    """Asks the portal for port and limits; without a valid answer the last known values hold."""
    try:
        port, allowed = client.fetch_values(host.config, user.name)
    except PortalUnavailable as error:
        progress.write(f"warning: {error}; using the values of {formatting.moment(user.fetched_at)}")
        return
    if holder := user_state.holder_of_port(host, port, user):
        progress.write(f"warning: the portal gave port {port}, which another person has here; keeping {user.port}")
        log.write(f"{user.name}: the portal gave port {port} of {holder}", warning=True)
        return
    if port != user.port and ownership.belongs_to_other_person(user, applied_keys.load(host)):
        progress.write(f"warning: at the portal, {user.name} is another person now; keeping port {user.port}")
        return
    user.port, user.limits, user.fetched_at = port, allowed, time.time()


def _bring_up(host: Host, user: User, account: Account, progress: Progress) -> None:
    if lxc.is_running(host, account):
        progress.write("the container is already running")
        return
    progress.write("starting the container")
    began = time.monotonic()
    nvidia.remove_stale_links(host, user)
    _prepare_bridge(host, user)
    try:
        with progress.spinner("starting the container"):
            lxc.start(host, account, processes=limits.processes(user))
    except LabhostError as error:
        raise _roll_back(host, user, account, error) from error
    progress.write(f"container started ({time.monotonic() - began:.1f} s)")


def _prepare_bridge(host: Host, user: User) -> None:
    """The person's own bridge, and LXC's permission to use it: a container of an earlier version had another."""
    with locks.rules(host):
        bridges.ensure(host, [bridges.bridge_of(host, user)])
    text = files.read_text(host.paths.usernet) or ""
    if linux_accounts.usernet_with(host, user, text) != text:
        with locks.accounts(host):
            linux_accounts.grant_bridge(host, user)


def _roll_back(host: Host, user: User, account: Account, error: LabhostError) -> LabhostError:
    shown = system_swap.roll_back_failed_start(host, user, account, error)
    apply_rules(host)  # another person's start may have set them while this container still seemed to run
    return shown


def _wait_for_sshd(host: Host, user: User, account: Account) -> bool:
    """True as soon as port 22 of the container greets as SSH does (RFC 4253 section 4.2)."""
    deadline = time.monotonic() + BANNER_SECONDS
    while time.monotonic() < deadline:
        if _greets(user.address):
            return True
        if not lxc.is_running(host, account):
            return False
        time.sleep(0.005)
    return False


def _greets(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1) as peer:
            peer.settimeout(1)
            return peer.recv(4, socket.MSG_WAITALL) == b"SSH-"
    except OSError:
        return False


def _no_sshd(host: Host) -> LabhostError:
    console = f"ssh -t {host.config.server.name}-manage console"
    text = f"the container is running, but no sshd answered within {BANNER_SECONDS} s; log in with: {console}"
    return LabhostError(text, reason="no_sshd", seconds=BANNER_SECONDS)


def _check_address(host: Host, user: User, account: Account) -> None:
    info = lxc.info(host, account)
    if info.running and user.address not in info.addresses:
        found = ", ".join(info.addresses) or "no address"
        text = f"the container has {found} instead of {user.address}; try: ssh {host.config.server.name}-manage restart"
        raise LabhostError(text, reason="wrong_address", found=found, expected=user.address)
    bridges.allow_hairpin(host, bridges.name_of(user))


def is_running(host: Host, user: User) -> bool:
    account = linux_accounts.find_account(host, user)
    return account is not None and lxc.is_running(host, account)
