"""Reads the state of this server: from the system, from the journal and from the portal. Changes nothing."""

import grp
import os
import pwd
import stat
from dataclasses import dataclass, field
from pathlib import Path

from labhost import lxc
from labhost.accounts import linux_accounts, tombstones
from labhost.admin import installation
from labhost.container import lifecycle
from labhost.errors import Busy, LabhostError, PortalUnavailable
from labhost.host import Host, User, disk_space, limits, locks, state_disk, user_state
from labhost.keys import applied_keys, key_files, set_keys
from labhost.keys.public_keys import render_container, render_host
from labhost.network import bridges, firewall, forwards, guard, ssh_limits
from labhost.portal import client
from labhost.storage import drivers, snapshot_store
from labhost.system import files, is_name, openat2

LOCK_SECONDS = 3.0  # a person whose container is being changed is skipped after that
TEMPORARY = "*.lab-iam-new"
TEXT_MOST = 256 << 20  # bytes of a file


@dataclass(frozen=True)
class Entry:
    """A file or folder: `kind` is "file", "dir", "other", or "" if it does not exist."""

    kind: str = ""
    uid: int = 0
    mode: int = 0
    text: str = ""


@dataclass(frozen=True)
class PersonState:
    user: User
    name_taken: bool = False  # an account of this name exists, created by labhost or not
    has_account: bool = False
    shell: str = ""
    password: str = ""
    groups: frozenset[str] = frozenset()
    folders: dict[str, Entry] = field(default_factory=dict)
    keys: Entry = Entry()
    keys_wanted: str = ""
    container_keys_ok: bool = True
    config: Entry = Entry()
    config_wanted: str = ""
    has_system: bool = False
    attached: bool = False
    leftovers: list[str] = field(default_factory=list)
    disk_used: int = 0  # bytes, where they are counted
    disk_enforced: bool = True  # or cannot be here, which is a note
    running: bool = False
    addresses: tuple[str, ...] = ()
    on_bridge: bool = True  # or not running
    portal_values: tuple[int, int] | None = None  # port and first subordinate id
    portal_keys: frozenset[str] | None = None  # blobs
    current_keys: frozenset[str] = frozenset()


@dataclass
class ServerState:
    host: Host
    people: list[PersonState] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # names of people with an unreadable journal
    orphans: list[str] = field(default_factory=list)  # accounts that labhost created, without a journal
    removed: list[tombstones.Tombstone] = field(default_factory=list)
    subuid: str = ""
    subgid: str = ""
    usernet: str = ""
    register: Entry = Entry()
    register_wanted: str = ""
    keys_complete: bool = True
    rules: set[str] = field(default_factory=set)
    rules_wanted: set[str] = field(default_factory=set)
    jumps: set[str] = field(default_factory=set)
    bridges: list[str] = field(default_factory=list)  # what is wrong with each
    guarded: bool = True  # the filters of what comes from containers are set
    weak_source_check: bool = False  # the server's rp_filter overrides that of the bridges
    occupied: set[int] = field(default_factory=set)  # ports on which programs of the server listen
    removed_files: Entry = Entry()
    strange_snapshots: list[str] = field(default_factory=list)  # paths that are not a folder of somebody here
    no_snapshots: str = ""  # why the snapshot folder cannot be used
    untrusted: list[str] = field(default_factory=list)
    unfit: str = ""
    temporary: list[str] = field(default_factory=list)
    low_disks: dict[str, str] = field(default_factory=dict)  # path -> what is low
    state_is_safe: bool = True  # from a full disk
    state_is_whole: bool = True
    notes: list[str] = field(default_factory=list)


def collect(host: Host) -> ServerState:
    server = ServerState(host)
    _system(server)
    _people(server)
    _unlimited(server)
    if not server.damaged:  # these depend on every journal
        _rules(server)
        _snapshots(server)
    return server


def entry(path: Path, *, read: bool = False) -> Entry:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Entry()
    kind = "dir" if stat.S_ISDIR(status.st_mode) else "file" if stat.S_ISREG(status.st_mode) else "other"
    text = (files.read_text(path, TEXT_MOST) or "") if read and kind == "file" else ""
    return Entry(kind, status.st_uid, stat.S_IMODE(status.st_mode), text)


def folders_of(host: Host, name: str) -> list[Path]:
    home = user_state.home_folder(host, name)
    share = home / ".local/share"
    return [home, home / ".ssh", home / ".local", share, share / "lxc"]


def temporary_files(host: Host) -> list[str]:
    """What interrupted writes left, in folders that only root can write to."""
    paths = host.paths
    places = [paths.config.parent, paths.usernet.parent, paths.state, paths.state / "users", paths.state / "removed"]
    places += [*paths.home.glob("*/.ssh"), Path("/usr/local/sbin"), Path("/public")]
    return sorted(str(found) for place in places for found in place.glob(TEMPORARY))


def _system(server: ServerState) -> None:
    host = server.host
    server.subuid = files.read_text(host.paths.subuid) or ""
    server.subgid = files.read_text(host.paths.subgid) or ""
    server.usernet = files.read_text(host.paths.usernet) or ""
    server.removed = tombstones.load_all(host)
    server.removed_files = entry(host.paths.home / tombstones.FOLDER)
    server.untrusted = installation.untrusted()
    server.temporary = temporary_files(host)
    server.low_disks = disk_space.low(host)
    server.state_is_safe = not disk_space.shared_by_state(host)
    server.state_is_whole = state_disk.is_whole(host.paths.state)
    try:
        installation.check_policy(host)
    except LabhostError as error:
        server.unfit = str(error)
    with locks.keys(host):
        applied = applied_keys.load(host)
        server.keys_complete = applied.complete
        server.register = entry(host.paths.home / "register/.ssh/authorized_keys", read=True)
        server.register_wanted = set_keys.register_text(host, applied)


def _unlimited(server: ServerState) -> None:
    """Notes what no finding can correct: the kernel has no means for it."""
    for person in server.people:
        available = limits.controllers(server.host, person.user)
        if person.running and (missing := sorted({"memory", "cpu"} - available)):
            text = f"containers are not limited here in {' and '.join(missing)}: cgroup2 has no such controllers"
            server.notes.append(text)
            return


def _people(server: ServerState) -> None:
    host = server.host
    names = user_state.all_names(host)
    groups = [(group.gr_name, frozenset(group.gr_mem)) for group in grp.getgrall()]
    passwords = dict(line.split(":")[:2] for line in (files.read_text(Path("/etc/shadow")) or "").splitlines())
    for name in names:
        try:
            with locks.user(host, name, seconds=LOCK_SECONDS):
                user = user_state.load_user(host, name)
                if user is not None:
                    mine = frozenset(group for group, members in groups if name in members)
                    server.people.append(_person(server, user, mine, passwords.get(name, "")))
        except Busy as error:
            server.notes.append(f"{name} was skipped: {error}")
        except LabhostError:
            server.damaged.append(name)
    members = dict(groups).get(linux_accounts.GROUP, frozenset())
    server.orphans = [
        item.pw_name
        for item in pwd.getpwall()
        if item.pw_gecos.split(",")[0] == linux_accounts.GECOS
        and item.pw_name in members
        and item.pw_name not in names
        and is_name(item.pw_name)
    ]


def _person(server: ServerState, user: User, groups: frozenset[str], password: str) -> PersonState:
    host = server.host
    account = linux_accounts.passwd_entry(host, user)
    if account is None:
        return PersonState(user, name_taken=linux_accounts.passwd(user.name) is not None)
    driver, identity = drivers.driver_of(host, user), linux_accounts.account_of(host, user)
    running = lxc.is_running(host, identity)
    known = set_keys.current_keys(host, user)
    has_system = driver.exists(user)
    rootfs = driver.rootfs(user)
    attached = has_system and rootfs.is_dir() and any(os.scandir(rootfs))
    # Unfinished and replaced root file systems; the person's lock is held, so nothing is working on them.
    folder = lxc.container_folder(host, user.name)
    leftovers = sorted(path.name for pattern in ("*.new-*", "*.dead-*") for path in folder.glob(pattern))
    portal_values, portal_keys = _from_portal(server, user)
    return PersonState(
        user,
        name_taken=True,
        has_account=True,
        shell=account.pw_shell,
        password=password,
        groups=groups,
        folders={str(path): entry(path) for path in folders_of(host, user.name)},
        keys=entry(user_state.home_folder(host, user.name) / ".ssh/authorized_keys", read=True),
        keys_wanted=render_host(known),
        container_keys_ok=not (user.registered and attached) or _container_keys_ok(host, user, render_container(known)),
        config=entry(lifecycle.config_file(host, user), read=True),
        config_wanted=lifecycle.config_text(host, user) if user.address else "",
        has_system=has_system,
        attached=attached,
        leftovers=leftovers,
        disk_used=used.used if has_system and (used := driver.disk_usage(user)) else 0,
        disk_enforced=not has_system or driver.disk_limit_enforced(user) or _has_obstacle(server, user),
        running=running,
        addresses=lxc.info(host, identity).addresses if running else (),
        on_bridge=not running or bool(bridges.ports(host, bridges.name_of(user))),
        portal_values=portal_values,
        portal_keys=portal_keys,
        current_keys=frozenset(key.blob for key in known),
    )


def _has_obstacle(server: ServerState, user: User) -> bool:
    """True if the person's disk limit cannot be enforced, with a note."""
    obstacle = drivers.driver_of(server.host, user).disk_limit_obstacle(user)
    if obstacle:
        server.notes.append(f"{user.name}: the disk limit is not enforced: {obstacle}")
    return bool(obstacle)


def _container_keys_ok(host: Host, user: User, text: str) -> bool:
    owner = key_files.container_owner(user)
    try:
        with (
            openat2.directory(drivers.driver_of(host, user).rootfs(user)) as root,
            openat2.subdirectory(root, f"home/{user.name}/.ssh") as folder,
        ):
            return openat2.matches(folder, "authorized_keys", text, owner=owner, mode=0o600)
    except (LabhostError, OSError):
        return False


def _from_portal(server: ServerState, user: User) -> tuple[tuple[int, int] | None, frozenset[str] | None]:
    """Port and first subordinate id, and key blobs; None if the portal does not answer, or did not before."""
    unavailable = "not everybody was compared with the portal: "
    if any(note.startswith(unavailable) for note in server.notes) or not user.registered:
        return None, None
    try:
        person = client.fetch_person(server.host.config, user.name)
    except PortalUnavailable as error:
        server.notes.append(f"{unavailable}{error}")
        return None, None
    return (person.port, person.subuid), frozenset(key.blob for key in person.keys)


def _rules(server: ServerState) -> None:
    host = server.host
    server.occupied, server.weak_source_check = forwards.occupied(), bridges.weakened(host)
    with locks.rules(host):
        here = [bridge for bridge in lifecycle.wanted_bridges(host) if bridges.exists(host, bridge.name)]
        extra = [f"the bridge {name} belongs to nobody" for name in bridges.extra(host, here)]
        server.bridges, server.guarded = bridges.faults(host, here) + extra, guard.is_set(host)
        server.rules, server.jumps = firewall.current_rules()
        wanted = firewall.render_rules(host.config, lifecycle.wanted_rules(host))
    server.rules_wanted = {line for line in wanted.splitlines() if line.startswith("-A ")}
    server.rules_wanted.update(ssh_limits.render_rules(host.config))


def _snapshots(server: ServerState) -> None:
    owners = {user.subuid for user in user_state.all_users(server.host)} | {gone.subuid for gone in server.removed}
    try:
        server.strange_snapshots = snapshot_store.strange_entries(server.host, owners)
    except LabhostError as error:
        server.no_snapshots = str(error)
