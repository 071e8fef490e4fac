"""set-keys: turns a push into authorized_keys files. A failure of one person does not affect the others.

A push holds everybody's keys (`users`), or the differences from the state with the digest `base` (`changes`). Changes
are applied only to exactly that state, and only if the result has the digest of the push. `ids` names the owners of the
keys: the account of somebody who had the name before gets none of them.

Taking keys away needs no room on the disk and no record of applied keys; adding some waits for both.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from labhost.errors import LabhostError, OtherBase, coded
from labhost.host import Host, User, locks, suspensions, user_state
from labhost.keys import (
    applied_keys,
    history,
    host_sessions,
    key_files,
    outcomes,
    ownership,
    push_request,
    revision_note,
    revoked,
    withheld,
)
from labhost.keys.applied_keys import Applied, Memory
from labhost.keys.outcomes import Outcome, Written
from labhost.keys.public_keys import KeyMap, Keys, RefusedKeys, judge_entries
from labhost.keys.push_request import Push
from labhost.storage.inventory import inventory
from labhost.system import failpoints, is_name, log

PLACES = (key_files.HOST, key_files.CONTAINER)


def set_keys(host: Host, request: Mapping[str, Any], memory: Memory | None = None) -> dict[str, Any]:
    """The answer of the protocol to a set-keys request; LabhostError if nothing could be applied."""
    memory = memory or Memory()
    if history.FIELD in request:
        return _take_away(host, history.parse_take_away(request, push_request.USERS_MOST), memory)
    push = push_request.parse(request)
    with locks.keys(host):
        try:
            before = memory.load(host)
        except (LabhostError, OSError) as error:
            return outcomes.answer(_unknown(push), _without_record(host, push, coded(error)))
        history.check(push.revision, push.digest, push.step, before)
        if push.revision < before.revision:  # staff have let another past replace the one here
            _recorded(lambda: suspensions.lower(host, push.revision - 1))
        users = effective(push, before) if push.base is None else changed(push, before)
        ids = ownership.merge(push.ids, before, users.keys())
        after = Applied(push.revision, push.digest, True, users, before.failed, ids, push.step.id)
        return _apply(host, push, before, after, memory)


def _take_away(host: Host, removal: history.TakeAway, memory: Memory) -> dict[str, Any]:
    with locks.keys(host):
        before = memory.load(host)
        after, left = history.reduced(removal, before)
        push = Push(after.revision, after.digest, left, {}, {}, {}, before.digest)
        return _apply(host, push, before, after, memory)


def _apply(host: Host, push: Push, before: Applied, after: Applied, memory: Memory) -> dict[str, Any]:
    same = before == after
    obstacle = None if same else _begin(host, memory, before, after)
    written = _write(host, push, after, obstacle)
    revoked.acknowledge(host, push.acknowledged)
    failed = [name for name in written.failed() if name not in push.errors]
    host_sessions.end(host, _losers(push, before, after, written))
    complete = after.complete and written.register != "failed"
    if not same or failed != before.failed or not complete:
        failpoints.hit("keys-written")
        among = None if push.base is None else push.names
        now = replace(after, complete=complete, failed=failed)
        written.problem = _recorded(lambda: memory.save(host, now, among))
    return outcomes.answer(after, written) | {"revoked": revoked.as_answer(host)}


def _begin(host: Host, memory: Memory, before: Applied, after: Applied) -> LabhostError | None:
    """Note the push before its first file; the error if an older one might be applied later."""
    problem = _recorded(lambda: memory.begin(host, after))
    if problem:
        note = revision_note.Note(after.revision, after.digest, after.id, before.id)
        problem = _recorded(lambda: revision_note.write(host, note))
    failpoints.hit("keys-noted")
    return problem


def _recorded(write: Callable[[], None]) -> LabhostError | None:
    """Why something could not be recorded: then the push goes on, and the next one completes it."""
    try:
        write()
    except (LabhostError, OSError) as error:
        log.write(f"set-keys: not recorded: {error}", warning=True)
        return coded(error)
    return None


def _unknown(push: Push) -> Applied:
    """The state after a push to a server that cannot read its record."""
    return Applied(push.revision, push.digest, False, KeyMap(push.users), [], push.ids, push.step.id)


def _without_record(host: Host, push: Push, problem: LabhostError) -> Written:
    """Only take keys away: nothing is known of earlier pushes, so this one may be an old one."""
    if push.base is not None:
        raise _other_base()
    log.write(f"set-keys: keys are only taken away: {problem}", warning=True)
    written = _write(host, push, _unknown(push), problem)
    host_sessions.end(host, [name for name, outcome in written.users.items() if outcome.host == "written"])
    written.problem = problem
    return written


def _losers(push: Push, before: Applied, after: Applied, written: Written) -> list[str]:
    """People who have lost a key, or whose file could not be written before."""
    names = before.users.keys() if push.base is None else before.users.keys() & push.names
    lost = {name for name in names if _blobs(before, name) - _blobs(after, name)}
    mended = {name for name in before.failed if name in written.users and written.users[name].host == "written"}
    return sorted(lost | mended)


def _blobs(applied: Applied, name: str) -> set[str]:
    return {key.blob for key in applied.users.get(name, ())}


def effective(push: Push, before: Applied) -> KeyMap:
    """The state after a push of everybody. A key that two people have stays with the one who had it before.

    A person whose entry failed as a whole keeps the last keys, unless others have them.
    """
    users = dict(push.users)
    taken = {key.blob for keys in push.users.values() for key in keys}
    for name in (push.errors.keys() | push.refused.keys()) & before.users.keys():
        is_same = before.ids.get(name) in (None, push.ids.get(name))
        last = [key for key in before.users[name] if is_same and key.blob not in taken]
        if name in push.refused:
            bad = push.refused[name]
            last = [key for key in last if key.blob in bad and bad[key.blob].reason == "key_shared"]
        users[name] = (*users.get(name, ()), *last)
    return KeyMap(users)


def changed(push: Push, before: Applied) -> KeyMap:
    """The state after a push of changes; OtherBase unless it is certainly the one that the portal means."""
    if push.base != before.digest or not before.complete:
        raise _other_base()
    names, new = push.names, {key.blob for keys in push.users.values() for key in keys}
    others = [key.blob for name, keys in before.users.items() if name not in names for key in keys]
    if push.errors or push.refused or not new.isdisjoint(others):
        raise OtherBase("the changed keys are not acceptable; send everybody's keys", reason="changes_refused")
    users = before.users.with_changes({**push.users, **dict.fromkeys(push.gone)})
    if hashlib.sha256(users.canonical().encode("ascii")).hexdigest() != push.digest:
        raise OtherBase("the result has another digest; send everybody's keys", reason="result_differs")
    return users


def _other_base() -> OtherBase:
    text = "these changes are for another state than the one applied here; send everybody's keys"
    return OtherBase(text, reason="base_differs")


def _write(host: Host, push: Push, after: Applied, obstacle: LabhostError | None) -> Written:
    """Write everybody's files, or those of the people in the changes and of those who failed in the last push.

    `obstacle`: why nothing is added to them.
    """
    held = withheld.load(host, after, push.acknowledged)
    given_back = {row.name for row in revoked.load(host) if row.fingerprint in push.acknowledged}
    names = None if push.base is None else push.names.union(after.failed, held.returning, given_back)
    written, here = Written(), _people(host, names)
    served = sorted(push.names | here.keys() if names is None else names)
    written.users = {name: Outcome(refused=_refused(push, after, name)) for name in served}

    def failed(user: User, place: str, error: LabhostError | OSError) -> None:
        written.users[user.name].fail(error, place)

    batch = key_files.Batch(host, failed, here.keys(), obstacle)
    for name in served:
        outcome, user = written.users[name], here.get(name)
        if isinstance(user, User) and user.managed and ownership.belongs_to_other_person(user, after):
            _stage(batch, user, (), outcome)
            outcome.fail(LabhostError(ownership.SOMEBODY_ELSE, reason="other_person", name=name), *PLACES)
        elif name in push.errors:
            outcome.fail(push.errors[name], *PLACES)
        elif isinstance(user, LabhostError):
            outcome.fail(user, *PLACES)
            key_files.shorten(host, name, held.rest(name, after.users.get(name, ())))
        elif user is not None and user.managed:
            _stage(batch, user, held.rest(name, after.users.get(name, ())), outcome)
    batch.commit()
    written.register = key_files.write_register(host, held.rest_of_all(after.users), obstacle)
    withheld.release(host, held, written.failed())
    whole = [user for user in here.values() if isinstance(user, User)]
    written.containers = inventory(host, whole, batch.known)
    return written


def _refused(push: Push, after: Applied, name: str) -> RefusedKeys:
    bad = push.refused.get(name)
    return {blob: error for blob, error in bad.items() if blob not in _blobs(after, name)} if bad else {}


def _stage(batch: key_files.Batch, user: User, keys: Keys, outcome: Outcome) -> None:
    for place in PLACES:
        try:
            setattr(outcome, place, batch.stage(user, place, keys))
        except (LabhostError, OSError) as error:
            outcome.fail(error, place)


def _people(host: Host, names: Iterable[str] | None) -> dict[str, User | LabhostError]:
    """Those of `names` (None: all) whom this server knows, each with the error if their file is damaged."""
    found: dict[str, User | LabhostError] = {}
    for name in user_state.all_names(host) if names is None else filter(is_name, names):
        try:
            if user := user_state.load_user(host, name):
                found[name] = user
        except LabhostError as error:
            found[name] = error
    return found


def current_keys(host: Host, user: User) -> Keys:
    """The keys pushed last; those of the registration if no push came since. The keys lock must be held."""
    now = applied_keys.load(host)
    if ownership.belongs_to_other_person(user, now):
        return ()
    keys = now.users.get(user.name)
    if keys is None:
        keys = judge_entries(user.keys)[0] if now.revision == user.keys_revision else ()
    return withheld.load(host, now).rest(user.name, keys)


def register_text(host: Host, applied: Applied) -> str:
    """What `register`'s key file should be."""
    return withheld.load(host, applied).rest_of_all(applied.users).render_register()
