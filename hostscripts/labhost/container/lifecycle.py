"""Start and stop of a registered person's container, and the port rules that follow from them."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labhost import lxc
from labhost.accounts import linux_accounts
from labhost.container import lxc_config, system_swap
from labhost.errors import LabhostError, NotRegistered, PortalUnavailable
from labhost.gpu import nvidia
from labhost.host import limits, locks, user_state
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.keys import applied_keys, ownership
from labhost.network import addresses, dhcp, firewall, forwards
from labhost.portal import client
from labhost.storage import drivers
from labhost.system import failpoints, files, formatting, log
from labhost.system.processes import Account
from labhost.system.progress import Progress

BANNER_SECONDS = 20
STOP_GRACE = 20
WAIT = 90.0


def find_by_uid(host: Host, uid: int) -> User:
    """The registered person with this host uid; NotRegistered."""
    for user in user_state.all_users(host):
        if user.managed and user.uid == uid and linux_accounts.passwd_entry(host, user) is not None:
            if user.registered:
                return user
            break
    raise NotRegistered(f"you have no container here yet: ssh register@{host.config.server.name}-manage NAME")


@contextmanager
def locked(host: Host, user: User, doing: str) -> Iterator[tuple[User, Account]]:
    """The person's file as it is once her lock is held, and her account; Busy or NotRegistered."""
    with locks.hold(host, locks.user_lock(user.name), seconds=WAIT, doing=f"{user.name}'s container is {doing}"):
        now = user_state.load_user(host, user.name)
        if now is None or not now.registered:
            raise NotRegistered(
                f"{user.name} has no container here: ssh register@{host.config.server.name}-manage {user.name}"
            )
        yield now, linux_accounts.account_of(host, now)


def start(host: Host, user: User, progress: Progress, *, again: bool = False) -> None:
    """The seed's "Start the Container". Safe to repeat: a running container stays, its rule is healed.

    With `again` only a container that is wanted running: nobody's stop is undone.
    """
    with locked(host, user, "starting or stopping") as (user, account):
        if again and user.desired_state != "running":
            return
        _refresh(host, user, progress)
        progress.write(f"port: {user.port}")
        lxc.start_user_manager(host, account)  # first, for its cgroup tells which limits this server can enforce
        write_config(host, user)
        system_swap.prepare(host, user, account, progress)
        failpoints.hit("start:configured")
        _bring_up(host, user, account, progress)
        failpoints.hit("start:up")
        user.desired_state = "running"
        user_state.save_user(host, user)
        failpoints.hit("start:noted")
        # While it boots: LXC itself gave the address, before its init ran.
        _check_address(host, user, account)
        apply_rules(host)
        failpoints.hit("start:ruled")
        with progress.spinner("waiting for its sshd"):
            answered = _wait_for_sshd(host, user, account)
        if answered:
            nvidia.install_matching_driver(host, user, account, progress)
        elif not lxc.is_running(host, account):
            raise _gave_up(host, user, account, LabhostError(_end_of(host, account)))
        progress.write(f"address: {user.address}")
        failpoints.hit("start:answered")
        progress.write(f"forward: {host.config.server.address}:{user.port} leads to {user.address}:22")
        if not answered:
            raise LabhostError(
                f"the container runs, but no sshd answered within {BANNER_SECONDS} s; "
                f"look inside with: ssh -t {host.config.server.name}-manage console"
            )
        progress.write(f"now: ssh {host.config.server.name}")
        system_swap.commit(host, user, account)
    log.write(f"{user.name}: container started")


def stop(host: Host, user: User, progress: Progress) -> None:
    with locked(host, user, "starting or stopping") as (user, account):
        if not halt(host, user, account, progress):
            progress.write("the container is stopped already")
    progress.write(f"to start it again: ssh {host.config.server.name}-manage")


def halt(host: Host, user: User, account: Account, progress: Progress) -> bool:
    """Takes the rules away, then stops the container; False if it did not run. The person's lock is held."""
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
    failpoints.hit("stop:down")
    log.write(f"{user.name}: container stopped")
    progress.write("the container is stopped")
    return True


def rebuild(host: Host, user: User, progress: Progress) -> None:
    """A fresh system from the current template. Nothing of the old one survives but what was snapshotted."""
    with locked(host, user, "being rebuilt") as (user, account):
        driver = drivers.driver_of(host, user)
        driver.attach(user, account)
        driver.remove_leftovers(user, account)
        driver.check()
        system = driver.create_fresh(user, account)
        halt(host, user, account, progress)
        system_swap.swap(host, user, account, system)
    log.write(f"{user.name}: container rebuilt")
    progress.write("a fresh system is in place; the one before is kept until the first good start")
    progress.write(f"it has SSH host keys of its own: ssh-keygen -R '[{host.config.server.address}]:{user.port}'")
    progress.write(f"to start it: ssh {host.config.server.name}-manage")


def restart(host: Host, user: User, progress: Progress) -> None:
    stop(host, user, progress)
    start(host, user, progress)


def write_config(host: Host, user: User) -> None:
    """The LXC configuration as it must be now; devices may have come since the last start."""
    if not addresses.in_network(host.config, user.address):
        with locks.hold(host, locks.ACCOUNTS, seconds=linux_accounts.WAIT, doing="accounts are being changed"):
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
    """Rules for the containers that are wanted and run, and for no others."""
    with locks.hold(host, locks.RULES, seconds=30, doing="port rules are being set"):
        firewall.apply_rules(host, wanted_rules(host))


def wanted_rules(host: Host) -> list[firewall.Forward]:
    """What the port rules must be now."""
    found = []
    for user in user_state.all_users(host):
        if user.registered and user.desired_state == "running" and is_running(host, user):
            found.append(firewall.Forward(user.port, user.address))
            found += [
                firewall.Forward(pair.server_port, user.address, pair.container_port)
                for pair in forwards.list_forwards(host, user)
            ]
    return found


def reconcile(host: Host) -> None:
    """What must be so, whatever happened since: at boot and each minute."""
    system_swap.attach_all(host)
    apply_rules(host)
    dhcp.keep_only(host, (user.name for user in user_state.all_users(host)))


def _refresh(host: Host, user: User, progress: Progress) -> None:
    """Asks the portal for port and limits; if it does not answer sensibly, what was last known holds."""
    try:
        port, allowed = client.fetch_values(host.config, user.name)
    except PortalUnavailable as error:
        progress.write(f"warning: {error}; going on with what was known on {formatting.moment(user.fetched_at)}")
        return
    holder = next(
        (other.name for other in user_state.all_users(host) if other.port == port and other.name != user.name), ""
    )
    if holder:
        progress.write(
            f"warning: the portal gave port {port}, which belongs to somebody else here; keeping {user.port}"
        )
        log.write(f"{user.name}: the portal gave port {port} of {holder}", warning=True)
        return
    if port != user.port and ownership.belongs_to_other_person(user, applied_keys.load(host)):
        progress.write(f"warning: the portal knows somebody else as {user.name} now; keeping port {user.port}")
        return
    user.port, user.limits, user.fetched_at = port, allowed, time.time()


def _bring_up(host: Host, user: User, account: Account, progress: Progress) -> None:
    if lxc.is_running(host, account):
        progress.write("the container runs already")
        return
    progress.write("starting the container")
    began = time.monotonic()
    nvidia.remove_stale_links(host, user)
    try:
        with progress.spinner("starting the container"):
            lxc.start(host, account)
    except LabhostError as error:
        raise _gave_up(host, user, account, error) from error
    progress.write(f"the container runs ({time.monotonic() - began:.1f} s)")


def _gave_up(host: Host, user: User, account: Account, error: LabhostError) -> LabhostError:
    told = system_swap.roll_back_failed_start(host, user, account, error)
    apply_rules(host)  # somebody else's start may have set them while this one still seemed to run
    return told


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


def _end_of(host: Host, account: Account) -> str:
    reason = lxc.last_error(host, account) or "its init ended"
    return f"the container stopped again by itself: {reason}; tell the lab's staff"


def _check_address(host: Host, user: User, account: Account) -> None:
    info = lxc.info(host, account)
    if info.running and user.address not in info.addresses:
        raise LabhostError(
            f"the container has {', '.join(info.addresses) or 'no address'} instead of {user.address}; "
            f"stop and start it: ssh {host.config.server.name}-manage restart"
        )
    firewall.allow_hairpin(host, info.link)


def is_running(host: Host, user: User) -> bool:
    return linux_accounts.passwd_entry(host, user) is not None and lxc.is_running(
        host, linux_accounts.account_of(host, user)
    )
