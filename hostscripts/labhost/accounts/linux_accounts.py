"""Host accounts of people: made with the system's own tools, under one lock; others are never touched."""

import grp
import pwd
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from labhost.accounts import lxc_usernet, subids, tombstones
from labhost.errors import Busy, LabhostError, Refused
from labhost.host import locks, user_state
from labhost.host.config import SUBUID_COUNT, Host
from labhost.host.user_state import User
from labhost.network import addresses
from labhost.system import files
from labhost.system.processes import Account, Result, run

GECOS = "Lab IAM"
NOLOGIN = "/usr/sbin/nologin"
GROUP = "lab-iam"  # the group whose members may call `labhost user`
WAIT = 60.0
MAX_SINGLE_LOOKUPS = 16  # people whose accounts are looked up one by one


def passwd_entry(
    host: Host, user: User, known: Mapping[str, pwd.struct_passwd] | None = None
) -> pwd.struct_passwd | None:
    """The account that labhost made for this person; None if it is gone, or is somebody else's now.

    `known` is what entries_of gave: each look-up by name reads through the whole of /etc/passwd.
    """
    try:
        entry = pwd.getpwnam(user.name) if known is None else known[user.name]
    except KeyError:
        return None
    mine = user.managed and entry.pw_uid == user.uid and entry.pw_dir == str(user_state.home_folder(host, user.name))
    return entry if mine else None


def passwd_entries(names: Collection[str]) -> dict[str, pwd.struct_passwd]:
    """The entries of those who have an account, whoever made it."""
    if len(names) > MAX_SINGLE_LOOKUPS:
        return {entry.pw_name: entry for entry in reversed(pwd.getpwall())}  # the first of a name counts
    found = {}
    for name in names:
        with suppress(KeyError):
            found[name] = pwd.getpwnam(name)
    return found


def account_of(host: Host, user: User, known: Mapping[str, pwd.struct_passwd] | None = None) -> Account:
    entry = passwd_entry(host, user, known)
    if entry is None:
        raise Refused(f"{user.name} has no account here that labhost made")
    return Account(user.name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def refuse_unmanaged(host: Host, name: str, user: User | None) -> None:
    """Refused if `name` is a local account or group that labhost did not make."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        entry = None
    made = user is not None and user.account in ("creating", "created")
    if entry is not None:
        ours = made and user is not None and entry.pw_gecos.split(",")[0] == GECOS
        ours = (
            ours
            and entry.pw_dir == str(user_state.home_folder(host, name))
            and (user is None or user.uid in (0, entry.pw_uid))
        )
        if not ours:
            raise Refused(f"{name} is a local account of this server; ask the lab's staff")
    elif _group_exists(name):
        raise Refused(f"{name} is a local group of this server; ask the lab's staff")
    elif user_state.home_folder(host, name).exists() and not made:
        raise Refused(f"{user_state.home_folder(host, name)} exists already; ask the lab's staff to move it away")


def claim_numbers(host: Host, user: User) -> None:
    """Refused if port or ids are somebody else's here; else gives a container address. Accounts lock held."""
    others = [other for other in user_state.all_users(host) if other.name != user.name]
    for other in others:
        if other.port == user.port:
            raise Refused(f"port {user.port} belongs to {other.name} here; ask the lab's staff")
        if other.subuid and abs(other.subuid - user.subuid) < SUBUID_COUNT:
            raise Refused(f"the subordinate ids from {user.subuid} belong to {other.name} here; ask the lab's staff")
    for gone in tombstones.load_all(host):
        if gone.name != user.name and (gone.port == user.port or abs(gone.subuid - user.subuid) < SUBUID_COUNT):
            raise Refused(f"port or subordinate ids were those of {gone.name}, who is gone; ask the lab's staff")
    for path in (host.paths.subuid, host.paths.subgid):
        names = {user.name} | ({str(user.uid)} if user.uid else set())
        clash = subids.conflict(subids.parse(files.read_text(path) or ""), names, user.subuid, SUBUID_COUNT)
        if clash is not None:
            raise Refused(f"the ids from {user.subuid} overlap those of {clash.owner} in {path}; ask the lab's staff")
    for entry in pwd.getpwall():
        if user.subuid <= entry.pw_uid < user.subuid + SUBUID_COUNT:
            raise Refused(f"the ids from {user.subuid} include the account {entry.pw_name}; ask the lab's staff")
    user.address = addresses.address_for(host, user, others)


def create(host: Host, user: User) -> None:
    """The account with a locked password and no shell. Accounts lock held."""
    refuse_unmanaged(host, user.name, user)
    try:
        entry = pwd.getpwnam(user.name)
    except KeyError:
        user.account = "creating"
        user_state.save_user(host, user)
        words = ["/usr/sbin/useradd", "--home-dir", str(user_state.home_folder(host, user.name)), "--no-create-home"]
        words += ["--user-group", "--shell", NOLOGIN, "--comment", GECOS, "--password", "*"]
        words += ["--groups", ",".join(dict.fromkeys((*_groups(host), GROUP)))]
        words += _uid_words(host, user)
        _tool(
            [*words, "-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0", "--", user.name],
            "the account cannot be made",
        )
        entry = pwd.getpwnam(user.name)
    home = user_state.home_folder(host, user.name)
    for folder in (home, home / ".ssh", home / ".local", home / ".local/share", home / ".local/share/lxc"):
        folder.mkdir(mode=0o755, exist_ok=True)
        folder.chmod(0o755)
    user.account, user.uid, user.gid = "created", entry.pw_uid, entry.pw_gid
    user_state.save_user(host, user)


def _uid_words(host: Host, user: User) -> list[str]:
    """useradd's options: the same uid for somebody who comes back, a fresh one for everybody else.

    Files that were kept of her stay hers. And systemd-logind keeps a record of her old uid for ten seconds after her
    last session: with her name on another uid, linger holds that record for ever and logind asks systemd about it
    without end, until the system bus stands still.
    """
    gone = tombstones.load_all(host)
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    for removed in gone:
        if (removed.name, removed.subuid) == (user.name, user.subuid) and removed.uid and removed.uid not in taken:
            return ["--uid", str(removed.uid)]
    return ["-K", f"UID_MIN={max(removed.uid for removed in gone) + 1}"] if gone else []


def join_groups(host: Host, user: User) -> None:
    """Those that the account did not get when it was made: host.conf may have changed since."""
    missing = [group for group in (*_groups(host), GROUP) if user.name not in grp.getgrnam(group).gr_mem]
    if missing:
        words = ["/usr/sbin/usermod", "--append", "--groups", ",".join(missing), "--", user.name]
        _tool(words, f"cannot join {', '.join(missing)}")


def _groups(host: Host) -> tuple[str, ...]:
    for group in (*host.config.container.groups, GROUP):
        if not _group_exists(group):
            raise LabhostError(f"the group {group} does not exist here; correct [container] groups in host.conf")
    return host.config.container.groups


def add_subids(host: Host, user: User) -> None:
    block = f"{user.subuid}-{user.subuid + SUBUID_COUNT - 1}"
    words = []
    for path, option in ((host.paths.subuid, "--add-subuids"), (host.paths.subgid, "--add-subgids")):
        own = [item for item in subids.parse(files.read_text(path) or "") if item.owner == user.name]
        if subids.Block(user.name, user.subuid, SUBUID_COUNT) in own:
            continue
        if own:
            raise Refused(f"{path} gives {user.name} other subordinate ids than the portal; ask the lab's staff")
        words += [option, block]
    if words:
        _tool(["/usr/sbin/usermod", *words, "--", user.name], "the subordinate ids cannot be added")


def grant_bridge(host: Host, user: User) -> None:
    path = host.paths.usernet
    path.parent.mkdir(mode=0o755, exist_ok=True)
    files.write_atomic(
        path, lxc_usernet.grant(files.read_text(path) or "", user.name, host.config.container.bridge), mode=0o644
    )


def set_login_shell(host: Host, user: User) -> None:
    entry = passwd_entry(host, user)
    if entry is not None and entry.pw_shell != str(host.paths.login_shell):
        _tool(
            ["/usr/sbin/usermod", "--shell", str(host.paths.login_shell), "--", user.name],
            "the login shell cannot be set",
        )


def revoke_login_shell(host: Host, user: User) -> None:
    entry = passwd_entry(host, user)
    if entry is not None and entry.pw_shell != NOLOGIN:
        _tool(["/usr/sbin/usermod", "--shell", NOLOGIN, "--", user.name], "the login shell cannot be taken")


def lock_password(host: Host, user: User) -> None:
    if passwd_entry(host, user) is not None:
        _tool(["/usr/sbin/usermod", "--password", "*", "--", user.name], "the password cannot be locked")


def remove_subids(host: Host, user: User) -> None:
    """Her own block; other lines, hers as well, are left to whoever wrote them."""
    words = []
    for path, option in ((host.paths.subuid, "--del-subuids"), (host.paths.subgid, "--del-subgids")):
        if subids.Block(user.name, user.subuid, SUBUID_COUNT) in subids.parse(files.read_text(path) or ""):
            words += [option, f"{user.subuid}-{user.subuid + SUBUID_COUNT - 1}"]
    if words and passwd_entry(host, user) is not None:
        _tool(["/usr/sbin/usermod", *words, "--", user.name], "the subordinate ids cannot be taken")


def revoke_bridge(host: Host, name: str) -> None:
    text = files.read_text(host.paths.usernet)
    if text is not None:
        files.write_atomic(host.paths.usernet, lxc_usernet.revoke(text, name, host.config.container.bridge), mode=0o644)


def delete(host: Host, user: User) -> None:
    """The account alone; nothing may run under it any more."""
    if passwd_entry(host, user) is not None:
        _tool(["/usr/sbin/userdel", "--", user.name], "the account cannot be removed")


def undo_create(host: Host, user: User) -> None:
    """Takes back an account whose container never started: only root's own folders, nobody's data."""
    with locks.hold(host, locks.ACCOUNTS, seconds=WAIT, doing="accounts are being changed"):
        text = files.read_text(host.paths.usernet)
        if text is not None:
            files.write_atomic(
                host.paths.usernet, lxc_usernet.revoke(text, user.name, host.config.container.bridge), mode=0o644
            )
        if passwd_entry(host, user) is not None:
            _tool(["/usr/sbin/userdel", "--", user.name], "the account cannot be removed")
            files.remove_tree(user_state.home_folder(host, user.name))
        user_state.delete_user(host, user.name)


def _group_exists(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _tool(words: Sequence[str], doing: str) -> Result:
    """A tool of the shadow package; waits while another process holds its lock files."""
    deadline = time.monotonic() + WAIT
    while True:
        result = run(words, timeout=WAIT)
        if result.ok:
            return result
        if b"lock" not in result.err:
            raise LabhostError(f"{doing}: {result.error_line}")
        if time.monotonic() >= deadline:
            raise Busy(f"{doing}: {result.error_line}")
        time.sleep(0.1)
