"""What differs between what is and what should be: pure comparisons of collected facts."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from labhost.accounts import linux_accounts, lxc_usernet, subids
from labhost.admin.doctor.inspection import Entry, ServerFacts, UserFacts
from labhost.host.config import SUBUID_COUNT
from labhost.network import firewall

HAND = ""  # a remedy that a human must choose


@dataclass(frozen=True)
class Finding:
    """`who` is a person's name, or empty for the server; `remedy` is a key of remedies, empty for a human's work."""

    who: str
    what: str
    fix: str
    remedy: str = HAND
    detail: str = ""  # what the remedy works on

    def __str__(self) -> str:
        return f"{self.who or 'server'}: {self.what}; {'fix' if self.remedy else 'by hand'}: {self.fix}"

    def as_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if key != "detail"}


def run_checks(facts: ServerFacts) -> list[Finding]:
    found = [item for compare in SERVER for item in compare(facts)]
    for person in facts.people:
        found += [item for compare in PERSON for item in compare(facts, person)]
    return found


def _trusted(facts: ServerFacts) -> Iterator[Finding]:
    for path in facts.untrusted:
        yield Finding("", f"{path} can be changed by others than root", "chown root, chmod go-w", "trust", path)
    if facts.unfit:
        yield Finding("", facts.unfit, "see setup-gpu-server.bash --help")


def _journal(facts: ServerFacts) -> Iterator[Finding]:
    for name in facts.damaged:
        yield Finding(name, "the journal cannot be read", f"move it aside, labhost register {name}", "adopt")
    for name in facts.orphans:
        yield Finding(name, "there is an account and no journal", f"labhost register {name}", "adopt")
    for person in facts.people:
        name = person.user.name
        if person.user.removal:
            purge = " --purge" if person.user.removal == "purge" else ""
            yield Finding(name, "a removal was cut off", f"labhost remove {name}{purge}", "remove")
        elif not person.user.registered:
            yield Finding(name, "a registration was cut off", f"labhost register {name}", "register")


def _shared_files(facts: ServerFacts) -> Iterator[Finding]:
    bridge = facts.host.config.container.bridge
    here = {person.user.name for person in facts.people} | set(facts.damaged) | set(facts.orphans)
    for removed in facts.removed:
        if removed.name not in here and lxc_usernet.revoke(facts.usernet, removed.name, bridge) != facts.usernet:
            yield Finding(removed.name, "lxc-usernet still names this removed person", "remove the line", "usernet")
    if not facts.keys_complete:
        yield Finding("", "the last push of keys was cut off", "manage.py push_keys at the portal")
    if facts.register.kind and _file_differs(facts.register, facts.register_wanted):
        yield Finding("", "register's authorized_keys are not what was pushed", "write them", "register_keys")
    if facts.kept_folder.kind and (facts.kept_folder.uid, facts.kept_folder.mode) != (0, 0o700):
        yield Finding("", "the kept files can be reached by others than root", "chmod 700", "kept")
    for path in facts.temporary:
        yield Finding("", f"{path} was left by a kill", "delete it", "debris", path)


def _rules(facts: ServerFacts) -> Iterator[Finding]:
    if facts.damaged:
        return
    is_, wanted = ({firewall.normalize_rule(rule) for rule in rules} for rules in (facts.rules, facts.rules_wanted))
    missing, extra = len(wanted - is_), len(is_ - wanted)
    jumps = len({ours for _, _, ours in firewall.JUMPS} - facts.jumps)
    if missing or extra or jumps:
        what = f"port rules: {missing} missing, {extra} too many, {jumps} chains not in use"
        yield Finding("", what, "labhost reconcile", "rules")


def _account(facts: ServerFacts, person: UserFacts) -> Iterator[Finding]:
    user, paths = person.user, facts.host.paths
    if not user.managed or user.removal:
        return
    if not person.has_account:
        if person.name_taken:
            yield Finding(user.name, "the account of this name is not the one that labhost made", "rename that one")
        elif user.registered:
            yield Finding(user.name, "the account is gone", f"labhost register {user.name}", "register")
        return
    shell = str(paths.login_shell) if user.registered else linux_accounts.NOLOGIN
    if person.shell != shell:
        yield Finding(user.name, f"the login shell is {person.shell}", f"usermod --shell {shell}", "shell")
    if person.password[:1] not in ("*", "!"):
        yield Finding(user.name, "the account has a password", "usermod --password '*'", "password")
    missing = {*facts.host.config.container.groups, linux_accounts.GROUP} - person.groups
    if user.registered and missing:
        yield Finding(user.name, f"not in the group {', '.join(sorted(missing))}", "usermod --append", "groups")


def _ids(facts: ServerFacts, person: UserFacts) -> Iterator[Finding]:
    user, paths = person.user, facts.host.paths
    if not (user.registered and person.has_account):
        return
    for path, text in ((paths.subuid, facts.subuid), (paths.subgid, facts.subgid)):
        blocks = subids.parse(text)
        own = [block for block in blocks if block.owner == user.name]
        clash = subids.conflict(blocks, {user.name, str(user.uid)}, user.subuid, SUBUID_COUNT)
        if clash is not None:
            yield Finding(user.name, f"{path} gives {clash.owner} some of the same ids", "change that line")
        elif not own:
            yield Finding(user.name, f"no subordinate ids in {path}", "usermod --add-subuids", "subids")
        elif own != [subids.Block(user.name, user.subuid, SUBUID_COUNT)]:
            yield Finding(user.name, f"other subordinate ids in {path}", f"make it {user.name}:{user.subuid}:65536")
    if lxc_usernet.grant(facts.usernet, user.name, facts.host.config.container.bridge) != facts.usernet:
        yield Finding(user.name, "lxc-usernet does not allow one link to the bridge", "write the line", "usernet")


def _folders(facts: ServerFacts, person: UserFacts) -> Iterator[Finding]:
    for path, found in person.folders.items():
        if not found.kind and person.user.registered:
            yield Finding(person.user.name, f"{path} is missing", "make it", "folder", path)
        elif found.kind not in ("", "dir"):
            yield Finding(person.user.name, f"{path} is not a folder", "look at it, and remove it")
        elif found.kind and (found.uid, found.mode) != (0, 0o755):
            yield Finding(person.user.name, f"{path} is not root's alone", "chown root, chmod 755", "folder", path)


def _keys(facts: ServerFacts, person: UserFacts) -> Iterator[Finding]:
    user = person.user
    if not (user.registered and person.has_account):
        return
    if _file_differs(person.keys, person.keys_wanted):
        yield Finding(user.name, "authorized_keys on the server are not what was pushed", "write them", "keys")
    if not person.inside_current:
        yield Finding(user.name, "authorized_keys in the container are not what was pushed", "write them", "keys")
    if person.told_keys is not None and person.told_keys != person.known_keys:
        yield Finding(user.name, "the portal has other keys", f"manage.py push_keys {facts.host.config.server.name}")


def _container(facts: ServerFacts, person: UserFacts) -> Iterator[Finding]:
    user, name = person.user, person.user.name
    if not (user.registered and person.has_account):
        return
    if not person.has_system:
        yield Finding(name, "the container's files are gone", f"mount them, or labhost register {name} for new ones")
        return
    if not person.attached:
        yield Finding(name, "the container's files are not mounted", "mount them", "attach")
    config_ok = person.config.text == person.config_wanted and person.config.uid == 0
    if not config_ok:
        yield Finding(name, "the container's configuration is not what it must be", "write it", "config")
    for item in person.leftovers:
        yield Finding(name, f"{item} was left by a kill", "delete it", "leftovers", item)
    if user.desired_state == "running" and not person.running:
        yield Finding(name, "the container does not run, though it was started", "start it", "start")
    if user.desired_state != "running" and person.running:
        yield Finding(name, "the container runs, though it was stopped", "stop it", "stop")
    if person.running and config_ok and user.address not in person.addresses:  # LXC reads it to find them
        has = ", ".join(person.addresses) or "no address"
        again = f"labhost stop {name} && labhost start {name}"
        yield Finding(name, f"the container has {has} instead of {user.address}", again)


def _portal(facts: ServerFacts, person: UserFacts) -> Iterator[Finding]:
    if person.told is None:
        return
    user, (port, subuid) = person.user, person.told
    if port != user.port:
        yield Finding(user.name, f"the portal gives port {port}, here it is {user.port}", "take it", "port", str(port))
    if subuid != user.subuid:
        what = f"the portal gives the ids from {subuid}, here they start at {user.subuid}"
        yield Finding(user.name, what, "ask who is right; the files belong to these here")


def _addresses(facts: ServerFacts) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for person in facts.people:
        address, name = person.user.address, person.user.name
        if address and address in seen:
            yield Finding(name, f"the address {address} is also {seen[address]}'s", f"labhost remove {name}, register")
        seen.setdefault(address, name)


def _file_differs(found: Entry, wanted: str) -> bool:
    return (found.kind, found.text, found.uid, found.mode) != ("file", wanted, 0, 0o644)


SERVER: tuple[Callable[[ServerFacts], Iterator[Finding]], ...] = (_trusted, _journal, _shared_files, _rules, _addresses)
PERSON: tuple[Callable[[ServerFacts, UserFacts], Iterator[Finding]], ...] = (
    _account,
    _ids,
    _folders,
    _keys,
    _container,
    _portal,
)
