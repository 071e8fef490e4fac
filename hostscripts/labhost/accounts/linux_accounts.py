"""Host accounts of people: created and changed with the system's own tools; other accounts are never touched."""

import grp
import pwd
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from labhost.accounts import lxc_usernet, subids, tombstones
from labhost.errors import Busy, LabhostError, Refused
from labhost.host import SUBUID_COUNT, Host, User, locks, suspensions, user_state
from labhost.network import addresses, bridges
from labhost.system import Account, files, run

GECOS = "Lab IAM"
NOLOGIN = "/usr/sbin/nologin"
GROUP = "lab-iam"  # the group that may call `labhost user`
WAIT = 60.0
Known = Mapping[str, pwd.struct_passwd] | None  # from passwd_entries
MAX_SINGLE_LOOKUPS = 16  # people whose accounts are looked up one by one


def passwd_entry(host: Host, user: User, known: Known = None) -> pwd.struct_passwd | None:
    """The account that labhost created for this person; None if it is gone or is somebody else's now.

    `known` comes from passwd_entries: each look-up by name reads all of /etc/passwd.
    """
    entry = passwd(user.name) if known is None else known.get(user.name)
    ours = user.managed and entry is not None and entry.pw_uid == user.uid and _has_home(host, entry)
    return entry if ours else None


def passwd_entries(names: Collection[str]) -> dict[str, pwd.struct_passwd]:
    """The entries of those who have an account, not only those that labhost created."""
    if len(names) > MAX_SINGLE_LOOKUPS:
        return {entry.pw_name: entry for entry in reversed(pwd.getpwall())}  # the first entry of a name counts
    return {name: entry for name in names if (entry := passwd(name)) is not None}


def find_account(host: Host, user: User, known: Known = None) -> Account | None:
    entry = passwd_entry(host, user, known)
    return None if entry is None else Account(user.name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def account_of(host: Host, user: User, known: Known = None) -> Account:
    """Refused if the person has no account here."""
    account = find_account(host, user, known)
    if account is None:
        raise Refused(f"{user.name} has no account here that labhost created", reason="no_account", user=user.name)
    return account


def refuse_unmanaged(host: Host, name: str, user: User | None) -> None:
    """Refused if `name` is a local account or group that labhost did not create."""
    entry, home = passwd(name), user_state.home_folder(host, name)
    created = user is not None and user.account in ("creating", "created")
    if entry is not None:
        marked = entry.pw_gecos.split(",")[0] == GECOS and _has_home(host, entry)
        if not (user is not None and created and marked and user.uid in (0, entry.pw_uid)):
            text = f"{name} is a local account of this server; ask the lab's staff"
            raise Refused(text, reason="local_account", name=name)
    elif _group_exists(name):
        raise Refused(f"{name} is a local group of this server; ask the lab's staff", reason="local_group", name=name)
    elif home.exists() and not created:
        text = f"{home} exists already; ask the lab's staff to move it away"
        raise Refused(text, reason="home_exists", path=str(home))


def claim_numbers(host: Host, user: User) -> None:
    """Refused if port or ids belong to somebody else here; else assigns an address. Accounts lock must be held."""
    others = [other for other in user_state.all_users(host) if other.name != user.name]
    first = user.subuid
    for other in others:
        if other.port == user.port:
            text = f"port {user.port} belongs to {other.name} here; ask the lab's staff"
            raise Refused(text, reason="port_taken", port=user.port, user=other.name)
        if other.subuid and abs(other.subuid - first) < SUBUID_COUNT:
            text = f"the subordinate ids from {first} belong to {other.name} here; ask the lab's staff"
            raise Refused(text, reason="subuid_taken", subuid=first, user=other.name)
    for gone in tombstones.load_all(host):
        returns = (gone.name, gone.subuid) == (user.name, first)
        if not returns and (gone.port == user.port or abs(gone.subuid - first) < SUBUID_COUNT):
            text = f"port or subordinate ids belonged to {gone.name}, who is gone; ask the lab's staff"
            raise Refused(text, reason="numbers_of_removed_user", port=user.port, subuid=first, user=gone.name)
    for path in (host.paths.subuid, host.paths.subgid):
        names = {user.name} | ({str(user.uid)} if user.uid else set())
        clash = subids.conflict(subids.parse(files.read_text(path) or ""), names, first, SUBUID_COUNT)
        if clash is not None:
            text = f"the ids from {first} overlap those of {clash.owner} in {path}; ask the lab's staff"
            raise Refused(text, reason="subuid_overlaps", subuid=first, owner=clash.owner, path=str(path))
    for entry in pwd.getpwall():
        if first <= entry.pw_uid < first + SUBUID_COUNT:
            text = f"the ids from {first} include the account {entry.pw_name}; ask the lab's staff"
            raise Refused(text, reason="subuid_includes_account", subuid=first, account=entry.pw_name)
    user.address = addresses.address_for(host, user, others)


def create(host: Host, user: User) -> None:
    """Creates the account with a locked password and no shell, and its folders. Accounts lock must be held."""
    refuse_unmanaged(host, user.name, user)
    home = user_state.home_folder(host, user.name)
    if passwd(user.name) is None:
        user.account = "creating"
        user_state.save_user(host, user)
        options = ["--home-dir", str(home), "--no-create-home", "--user-group", "--shell", NOLOGIN, "--comment", GECOS]
        options += ["--password", "*", "--groups", ",".join(dict.fromkeys((*_groups(host), GROUP)))]
        options += ["-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0", *_uid_options(host, user)]
        _shadow_tool("useradd", user, options, "the account cannot be created")
    entry = pwd.getpwnam(user.name)
    for folder in (home, home / ".ssh", home / ".local", home / ".local/share", home / ".local/share/lxc"):
        folder.mkdir(mode=0o755, exist_ok=True)
        folder.chmod(0o755)
    user.account, user.uid, user.gid = "created", entry.pw_uid, entry.pw_gid
    user_state.save_user(host, user)


def _uid_options(host: Host, user: User) -> list[str]:
    """useradd's options: the earlier uid for somebody who was removed and returns, an unused one for anybody else.

    Kept files then stay the person's own. And systemd-logind remembers the old uid for ten seconds after the last
    session: if the name gets another uid, linger keeps that record and logind asks systemd about it without end,
    until the system bus stops answering.
    """
    gone = tombstones.load_all(host)
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    for removed in gone:
        if (removed.name, removed.subuid) == (user.name, user.subuid) and removed.uid and removed.uid not in taken:
            return ["--uid", str(removed.uid)]
    return ["-K", f"UID_MIN={max(removed.uid for removed in gone) + 1}"] if gone else []


def join_groups(host: Host, user: User) -> None:
    """Adds the account to groups it is not in: host.conf may have changed since it was created."""
    missing = ",".join(group for group in (*_groups(host), GROUP) if user.name not in grp.getgrnam(group).gr_mem)
    if missing:
        _shadow_tool("usermod", user, ["--append", "--groups", missing], f"cannot join {missing}")


def _groups(host: Host) -> tuple[str, ...]:
    for group in (*host.config.container.groups, GROUP):
        if not _group_exists(group):
            text = f"the group {group} does not exist here; correct [container] groups in host.conf"
            raise LabhostError(text, reason="group_missing", group=group)
    return host.config.container.groups


def add_subids(host: Host, user: User) -> None:
    """Refused if the account has other subordinate ids."""
    block = subids.Block(user.name, user.subuid, SUBUID_COUNT)
    options = []
    for path, option in ((host.paths.subuid, "--add-subuids"), (host.paths.subgid, "--add-subgids")):
        own = [item for item in subids.parse(files.read_text(path) or "") if item.owner == user.name]
        if own and block not in own:
            text = f"{path} gives {user.name} other subordinate ids than the portal; ask the lab's staff"
            raise Refused(text, reason="other_subuids", user=user.name, path=str(path))
        options += [] if own else [option, block.as_range]
    if options:
        _shadow_tool("usermod", user, options, "the subordinate ids cannot be added")


def remove_subids(host: Host, user: User) -> None:
    """Removes the person's block; other lines, even theirs, stay: labhost did not write them."""
    block = subids.Block(user.name, user.subuid, SUBUID_COUNT)
    options = []
    for path, option in ((host.paths.subuid, "--del-subuids"), (host.paths.subgid, "--del-subgids")):
        if block in subids.parse(files.read_text(path) or ""):
            options += [option, block.as_range]
    if options and passwd_entry(host, user) is not None:
        _shadow_tool("usermod", user, options, "the subordinate ids cannot be removed")


def grant_bridge(host: Host, user: User) -> None:
    path = host.paths.usernet
    path.parent.mkdir(mode=0o755, exist_ok=True)
    files.write_atomic(path, usernet_with(host, user, files.read_text(path) or ""), mode=0o644)


def usernet_with(host: Host, user: User, text: str) -> str:
    """The text of lxc-usernet as it should be for this person."""
    return lxc_usernet.grant(text, user.name, bridges.name_of(user), host.config.container.bridge)


def revoke_bridge(host: Host, user: User) -> None:
    """Takes the person's link to their bridge away, and the bridge itself."""
    path, bridge = host.paths.usernet, host.config.container.bridge
    if (text := files.read_text(path)) is not None:
        files.write_atomic(path, lxc_usernet.revoke(text, user.name, bridge), mode=0o644)
    bridges.remove(host, bridges.name_of(user))


def login_shell(host: Host, user: User) -> str:
    """None before the registration is complete, once a removal has begun, and while the person is suspended."""
    is_open = user.registered and not suspensions.is_suspended(host, user.name)
    return str(host.paths.login_shell) if is_open else NOLOGIN


def set_login_shell(host: Host, user: User, shell: str = "") -> None:
    """Sets `shell`, or else the one that the person should have."""
    entry, shell = passwd_entry(host, user), shell or login_shell(host, user)
    if entry is not None and entry.pw_shell != shell:
        _shadow_tool("usermod", user, ["--shell", shell], "the login shell cannot be changed")


def lock_password(host: Host, user: User) -> None:
    if passwd_entry(host, user) is not None:
        _shadow_tool("usermod", user, ["--password", "*"], "the password cannot be locked")


def delete(host: Host, user: User) -> None:
    """Removes the account alone. Nothing may run under it any more."""
    if passwd_entry(host, user) is not None:
        _shadow_tool("userdel", user, [], "the account cannot be removed")


def undo_create(host: Host, user: User) -> None:
    """Removes an account whose container never started: its home has only root's own folders, nobody's data."""
    with locks.accounts(host):
        revoke_bridge(host, user)
        if passwd_entry(host, user) is not None:
            delete(host, user)
            files.remove_tree(user_state.home_folder(host, user.name))
        user_state.delete_user(host, user.name)


def passwd(name: str) -> pwd.struct_passwd | None:
    with suppress(KeyError):
        return pwd.getpwnam(name)
    return None


def _has_home(host: Host, entry: pwd.struct_passwd) -> bool:
    return entry.pw_dir == str(user_state.home_folder(host, entry.pw_name))


def _group_exists(name: str) -> bool:
    with suppress(KeyError):
        return bool(grp.getgrnam(name))
    return False


def _shadow_tool(tool: str, user: User, options: Sequence[str], problem: str) -> None:
    """useradd, usermod or userdel; waits while another process holds their lock files."""
    deadline = time.monotonic() + WAIT
    while True:
        result = run([f"/usr/sbin/{tool}", *options, "--", user.name], timeout=WAIT)
        if result.ok:
            return
        if b"lock" not in result.err or time.monotonic() >= deadline:
            kind = Busy if b"lock" in result.err else LabhostError
            text = f"{problem}: {result.error_line}"
            raise kind(text, reason="account_tool_failed", problem=problem, detail=result.error_line)
        time.sleep(0.1)
