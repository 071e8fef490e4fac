"""Compares what was inspected with what should be. Pure: nothing is read or changed here."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from labhost.accounts import linux_accounts, lxc_usernet, subids
from labhost.admin.doctor.inspection import Entry, PersonState, ServerState
from labhost.host import SUBUID_COUNT, state_disk
from labhost.network import firewall
from labhost.system import formatting


class Finding(NamedTuple):
    """One problem. `name` is a person's, or empty for the server; `fix` is a key of fixes.FIXES, or empty if a human
    must decide; `advice` says how to correct it by hand."""

    name: str
    problem: str
    advice: str
    fix: str = ""
    target: str = ""  # what the fix works on

    def __str__(self) -> str:
        return f"{self.name or 'server'}: {self.problem}; {'fix' if self.fix else 'by hand'}: {self.advice}"

    def as_json(self) -> dict[str, object]:
        return {key: value for key, value in self._asdict().items() if key != "target"}


def run_checks(server: ServerState) -> list[Finding]:
    found = [item for compare in SERVER for item in compare(server)]
    for person in server.people:
        complete = person.user.registered and person.has_account
        checks = PERSON + COMPLETE if complete else PERSON
        found += [item for compare in checks for item in compare(server, person)]
    return found


def _permissions(server: ServerState) -> Iterator[Finding]:
    for path in server.untrusted:
        yield Finding("", f"{path} can be changed by others", "chown root, chmod go-w", "permissions", path)
    if server.unfit:
        yield Finding("", server.unfit, "see setup-gpu-server.bash --help")


def _journal(server: ServerState) -> Iterator[Finding]:
    for name in server.damaged:
        yield Finding(name, "the journal cannot be read", f"move it aside, then labhost register {name}", "adopt")
    for name in server.orphans:
        yield Finding(name, "there is an account but no journal", f"labhost register {name}", "adopt")
    for person in server.people:
        name = person.user.name
        if person.user.removal:
            purge = " --purge" if person.user.removal == "purge" else ""
            yield Finding(name, "a removal was interrupted", f"labhost remove {name}{purge}", "remove")
        elif not person.user.registered:
            yield Finding(name, "a registration was interrupted", f"labhost register {name}", "register")


def _shared_files(server: ServerState) -> Iterator[Finding]:
    bridge = server.host.config.container.bridge
    here = {person.user.name for person in server.people} | set(server.damaged) | set(server.orphans)
    for name in sorted({removed.name for removed in server.removed} - here):
        if lxc_usernet.revoke(server.usernet, name, bridge) != server.usernet:
            yield Finding(name, "lxc-usernet still lists this removed person", "remove the line", "usernet")
    if not server.keys_complete:
        yield Finding("", "the last push of keys was interrupted", "push the keys at the portal (manage.py push_keys)")
    if server.register.kind and _file_differs(server.register, server.register_wanted):
        yield Finding("", "the authorized_keys of register differ from the pushed keys", "write them", "register_keys")
    if server.removed_files.kind and (server.removed_files.uid, server.removed_files.mode) != (0, 0o700):
        yield Finding("", "other accounts can read the files of removed people", "chmod 700", "removed_files")
    for path in server.temporary:
        yield Finding("", f"{path} was left by an interrupted write", "delete it", "temporary_file", path)


def _snapshots(server: ServerState) -> Iterator[Finding]:
    if server.no_snapshots:
        yield Finding("", server.no_snapshots, "labhost check")
    for path in server.strange_snapshots:
        problem = f"{path} is not the private folder of somebody here, so no snapshot in it can be recovered"
        yield Finding("", problem, "inspect it, then move or delete it")


def _disks(server: ServerState) -> Iterator[Finding]:
    homes, state = str(server.host.paths.home), server.host.paths.state
    people = sorted((person for person in server.people if person.disk_used), key=lambda person: -person.disk_used)
    most = ", ".join(f"{person.user.name} {formatting.size(person.disk_used)}" for person in people[:5])
    for path, shortage in server.low_disks.items():
        used = f" (most used by {most})" if path == homes and most else ""
        yield Finding("", f"the disk of {path} is almost full: {shortage}{used}", "free some space")
    if not server.state_is_safe:
        problem = f"containers can fill the disk of {state}, and nothing can be noted then"
        yield Finding("", problem, "free some space, then run setup-gpu-server.bash again")
    if not server.state_is_whole:
        yield Finding("", f"{state_disk.image_of(state)} has holes", "allocate them", "state_image")


def _rules(server: ServerState) -> Iterator[Finding]:
    if server.damaged:
        return
    found, wanted = ({firewall.normalize_rule(rule) for rule in rules} for rules in (server.rules, server.rules_wanted))
    missing, extra = len(wanted - found), len(found - wanted)
    jumps = len({ours for _, _, ours in firewall.JUMPS} - server.jumps)
    if missing or extra or jumps:
        problem = f"port rules: {missing} missing, {extra} unexpected, {jumps} chains not in use"
        yield Finding("", problem, "labhost reconcile", "rules")


def _network(server: ServerState) -> Iterator[Finding]:
    for text in server.bridges:
        yield Finding("", text, "labhost reconcile", "bridges")
    if not server.guarded:
        yield Finding("", "the filters of the containers' bridges are not set", "labhost reconcile", "bridges")
    if server.weak_source_check:
        advice = "set net.ipv4.conf.all.rp_filter to 0 or 1"
        yield Finding("", "rp_filter is 2: forged senders from containers reach the neighbour table", advice)


def _ports(server: ServerState, person: PersonState) -> Iterator[Finding]:
    user = person.user
    for port in (user.port, *(pair[1] for pair in user.forwards)):
        if port in server.occupied:
            effect = "it is not reached" if port == user.port else "the port is not forwarded"
            problem = f"a program of this server listens on their port {port}; {effect}"
            yield Finding(user.name, problem, "stop it, or let them choose another port")


def _account(server: ServerState, person: PersonState) -> Iterator[Finding]:
    user = person.user
    if not user.managed or user.removal:
        return
    if not person.has_account:
        if person.name_taken:
            yield Finding(user.name, "the account of this name was not created by labhost", "rename that account")
        elif user.registered:
            yield Finding(user.name, "the account is missing", f"labhost register {user.name}", "register")
        return
    shell = linux_accounts.login_shell(server.host, user)
    if person.shell != shell:
        yield Finding(user.name, f"the login shell is {person.shell}", f"usermod --shell {shell}", "shell")
    if person.password[:1] not in ("*", "!"):
        yield Finding(user.name, "the account has a password", "usermod --password '*'", "password")
    missing = {*server.host.config.container.groups, linux_accounts.GROUP} - person.groups
    if user.registered and missing:
        yield Finding(user.name, f"not in the group {', '.join(sorted(missing))}", "usermod --append", "groups")


def _ids(server: ServerState, person: PersonState) -> Iterator[Finding]:
    user, paths = person.user, server.host.paths
    for path, text in ((paths.subuid, server.subuid), (paths.subgid, server.subgid)):
        blocks = subids.parse(text)
        own = [block for block in blocks if block.owner == user.name]
        clash = subids.conflict(blocks, {user.name, str(user.uid)}, user.subuid, SUBUID_COUNT)
        if clash is not None:
            yield Finding(user.name, f"{path} assigns some of the same ids to {clash.owner}", "change that line")
        elif not own:
            yield Finding(user.name, f"no subordinate ids in {path}", "usermod --add-subuids", "subids")
        elif own != [subids.Block(user.name, user.subuid, SUBUID_COUNT)]:
            right = f"{user.name}:{user.subuid}:65536"
            yield Finding(user.name, f"wrong subordinate ids in {path}", f"change it to {right}")
    if linux_accounts.usernet_with(server.host, user, server.usernet) != server.usernet:
        yield Finding(user.name, "lxc-usernet does not allow one link to their bridge", "write the line", "usernet")


def _folders(server: ServerState, person: PersonState) -> Iterator[Finding]:
    name = person.user.name
    for path, found in person.folders.items():
        if not found.kind and person.user.registered:
            yield Finding(name, f"{path} is missing", "create it", "folder", path)
        elif found.kind not in ("", "dir"):
            yield Finding(name, f"{path} is not a folder", "inspect and remove it")
        elif found.kind and (found.uid, found.mode) != (0, 0o755):
            yield Finding(name, f"the owner or mode of {path} is wrong", "chown root, chmod 755", "folder", path)


def _keys(server: ServerState, person: PersonState) -> Iterator[Finding]:
    user = person.user
    if _file_differs(person.keys, person.keys_wanted):
        yield Finding(user.name, "authorized_keys on the server differ from the pushed keys", "write them", "keys")
    if not person.container_keys_ok:
        yield Finding(user.name, "authorized_keys in the container differ from the pushed keys", "write them", "keys")
    if person.portal_keys is not None and person.portal_keys != person.current_keys:
        yield Finding(user.name, "the portal has other keys", f"manage.py push_keys {server.host.config.server.name}")


def _container(server: ServerState, person: PersonState) -> Iterator[Finding]:
    user, name = person.user, person.user.name
    if not person.has_system:
        yield Finding(name, "the container's files are missing", f"mount them, or labhost register {name} for new ones")
        return
    if not person.attached:
        yield Finding(name, "the container's files are not mounted", "mount them", "attach")
    config_ok = person.config.text == person.config_wanted and person.config.uid == 0
    if not config_ok:
        yield Finding(name, "the container's configuration was changed", "write it", "config")
    if not person.disk_enforced:
        yield Finding(name, "the disk limit is not set", "set it", "quota")
    for item in person.leftovers:
        yield Finding(name, f"{item} was left by an interrupted command", "delete it", "leftovers", item)
    if user.desired_state == "running" and not person.running:
        yield Finding(name, "the container should be running", "start it", "start")
    if user.desired_state != "running" and person.running:
        yield Finding(name, "the container should be stopped", "stop it", "stop")
    restart = f"labhost stop {name} && labhost start {name}"
    if not person.on_bridge:
        yield Finding(name, "the container is not on a bridge of its own", restart)
    if person.running and config_ok and user.address not in person.addresses:  # LXC reads it to find them
        has = ", ".join(person.addresses) or "no address"
        yield Finding(name, f"the container has {has} instead of {user.address}", restart)


def _portal(server: ServerState, person: PersonState) -> Iterator[Finding]:
    if person.portal_values is None:
        return
    user, (port, subuid) = person.user, person.portal_values
    if port != user.port:
        yield Finding(user.name, f"the port is {user.port} here, {port} at the portal", "use that", "port", str(port))
    if subuid != user.subuid:
        problem = f"the subordinate ids start at {user.subuid} here, at {subuid} at the portal"
        yield Finding(user.name, problem, "find out which are right; the files belong to those here")


def _addresses(server: ServerState) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for person in server.people:
        address, name = person.user.address, person.user.name
        if address and address in seen:
            advice = f"labhost remove {name}, then register"
            yield Finding(name, f"{seen[address]} has the same address {address}", advice)
        seen.setdefault(address, name)


def _file_differs(found: Entry, wanted: str) -> bool:
    return (found.kind, found.text, found.uid, found.mode) != ("file", wanted, 0, 0o644)


ServerCheck = Callable[[ServerState], Iterator[Finding]]
PersonCheck = Callable[[ServerState, PersonState], Iterator[Finding]]
SERVER: tuple[ServerCheck, ...] = (
    _permissions, _journal, _shared_files, _snapshots, _disks, _network, _rules, _addresses,
)  # fmt: skip
PERSON: tuple[PersonCheck, ...] = (_account, _folders, _portal)
COMPLETE: tuple[PersonCheck, ...] = (_ids, _keys, _container, _ports)  # registered, and their account is there
