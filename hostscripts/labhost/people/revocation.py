"""Revokes keys by hand on this server, for staff whose portal does not answer. The portal hears of it when it asks."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from labhost.errors import LabhostError, Refused
from labhost.host import Host, User, locks, user_state
from labhost.keys import applied_keys, key_files, revoked, set_keys, withheld
from labhost.keys.public_keys import Keys, judge_entries
from labhost.keys.revoked import FINGERPRINT
from labhost.people import shutdown, steps
from labhost.people.steps import Run
from labhost.system import Progress, check_name, files, log

PLACES = (key_files.HOST, key_files.CONTAINER)


class Changed(NamedTuple):
    keys: list[tuple[str, str]]  # name and fingerprint
    problems: list[str]  # what could not be done, in English


def revoke(host: Host, target: str, progress: Progress) -> Changed:
    """Take a key, or all keys of a person, out of all files here, and end its owner's sessions. Safe to repeat.

    Everything is tried, whatever fails. Refused if this server knows no such key.
    """
    with locks.keys(host):
        keys = _find(host, target)
        names = {name for name, _ in keys}
        problems = _attempt("the note for later pushes cannot be written", lambda: revoked.add(host, keys))
        failed = _write(host, names, frozenset(fingerprint for _, fingerprint in keys))
    for name, fingerprint in keys:
        log.write(f"{name}: the key {fingerprint} was revoked by hand")
    for name in sorted(names):
        some = shutdown.cut_off() if (name, key_files.HOST) in failed else shutdown.STEPS[:1]
        problems += _attempt(f"the access of {name} has not ended", _performer(host, name, some, progress))
    return Changed(keys, problems + list(failed.values()))


def undo(host: Host, target: str) -> Changed:
    """Give revoked keys back, as far as the last push has them. Refused if none is revoked."""
    with locks.keys(host):
        rows = [row for row in revoked.load(host) if target in (row.name, row.fingerprint)]
        if not rows:
            raise Refused(f"no key of {target} is revoked by hand here", reason="not_revoked", target=target)
        revoked.forget(host, {row.fingerprint for row in rows})
        failed = _write(host, {row.name for row in rows})
    for row in rows:
        log.write(f"{row.name}: the revocation of {row.fingerprint} was undone")
    return Changed([(row.name, row.fingerprint) for row in rows], list(failed.values()))


def _find(host: Host, target: str) -> list[tuple[str, str]]:
    """Name and fingerprint of the keys that are meant."""
    is_key = FINGERPRINT.fullmatch(target) is not None
    applied = applied_keys.load(host).users
    names = {*applied, *user_state.all_names(host)} if is_key else {check_name(target)}
    found = {(row.name, row.fingerprint) for row in revoked.load(host) if target in (row.name, row.fingerprint)}
    for name in names:
        for key in (*applied.get(name, ()), *_of_registration(host, name)):
            if target in (name, key.fingerprint):
                found.add((name, key.fingerprint))
    if not found:
        text = f"this server knows no key of {target}; its keys are in /home/register/.ssh/authorized_keys"
        raise Refused(text, reason="no_such_key", target=target)
    return sorted(found)


def _of_registration(host: Host, name: str) -> Keys:
    """The keys that the portal gave when the person registered; a push may not have come since."""
    try:
        user = user_state.load_user(host, name)
        return judge_entries(user.keys)[0] if user is not None else ()
    except LabhostError:
        return ()


def _write(host: Host, names: Iterable[str], gone: frozenset[str] = frozenset()) -> dict[tuple[str, str], str]:
    """Write the key files of these people and of `register` without the keys `gone`; what failed, by name and place."""
    applied = applied_keys.load(host)
    held = withheld.load(host, applied)
    held = replace(held, fingerprints=held.fingerprints | gone)
    failed = {}
    for name in sorted(names):
        for place in PLACES:
            if problem := _attempt(f"the keys of {name} ({place}) cannot be written", _writer(host, name, place, held)):
                failed[name, place] = problem[0]
    text, path = held.rest_of_all(applied.users).render_register(), host.paths.home / "register/.ssh/authorized_keys"
    if path.parent.is_dir() and (
        problem := _attempt(
            "the keys of register cannot be written", lambda: files.write_atomic(path, text, mode=0o644)
        )
    ):
        failed["register", ""] = problem[0]
    return failed


def _writer(host: Host, name: str, place: str, held: withheld.Withheld) -> Callable[[], object]:
    def write() -> None:
        user = user_state.load_user(host, name)
        if user is not None and user.managed:
            key_files.write(host, user, place, held.rest(name, set_keys.current_keys(host, user)))

    return write


def _performer(host: Host, name: str, some: Iterable[steps.Step], progress: Progress) -> Callable[[], object]:
    def perform() -> None:
        user: User | None = user_state.load_user(host, name)
        if user is not None and user.managed:
            chosen = tuple(some)
            every = [step.name for step in chosen]
            steps.perform(Run(host, user, progress), chosen, prefix="revoke:", note=lambda _: None, go_on=every)

    return perform


def _attempt(problem: str, action: Callable[[], object]) -> list[str]:
    """Nothing, or the problem with its error."""
    try:
        action()
    except (LabhostError, OSError) as error:
        return [f"{problem}: {error}"]
    return []
