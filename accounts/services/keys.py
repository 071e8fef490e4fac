"""Adding and removing SSH keys, and which of them servers should hold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from django.db import transaction
from django.utils import timezone

from accounts import sshkeys
from accounts.models import KeyRange, SSHKey, User
from accounts.services import audit, revision
from accounts.sshkeys import KeyRefused, PublicKey

TAKEN = "One of these keys is already in use by another account. Create a new key, or ask the lab's staff."


@dataclass(frozen=True)
class AddedKeys:
    """What a paste did: keys that are new, and keys that the person already had."""

    added: list[SSHKey] = field(default_factory=list)
    already: list[SSHKey] = field(default_factory=list)


@dataclass(frozen=True)
class KeyState:
    """The keys that every server should hold at this revision; people without keys are left out."""

    revision: int
    users: dict[str, list[PublicKey]]
    ids: dict[str, int]  # name to first subordinate id: unlike a name, it never passes to another person


def current_revision() -> int:
    return revision.current()


def current_state() -> KeyState:
    """The keys that servers should hold now, by name, each person's in the order of adding.

    Read again if the revision changed meanwhile: a person deleted between the two queries takes their ranges along.
    """
    number = revision.current()
    users, ids = dict[str, list[PublicKey]](), dict[str, int]()
    ranges = KeyRange.objects.wanted_at(number).order_by("key")
    person = ("key__user__username", "key__user__subuids__start")
    for name, start, *key in ranges.values_list(*person, "key__key_type", "key__blob", "key__comment"):
        users.setdefault(name, []).append(PublicKey(*key))
        if start is not None:  # a host serves nobody without subordinate ids, and reports it
            ids[name] = start
    return KeyState(number, users, ids) if revision.current() == number else current_state()


def changed_since(number: int) -> list[str]:
    """Names of the people whose keys servers should hold differently than at revision `number`."""
    return list(User.objects.filter(keys_revision__gt=number).values_list("username", flat=True))


def add_keys(*, actor: str, user: User, pasted: str | Sequence[PublicKey]) -> AddedKeys:
    """Add all pasted keys (text, or parsed already) or none. Raises KeyRefused, with one reason per refused line."""
    keys = sshkeys.parse(pasted) if isinstance(pasted, str) else pasted
    with transaction.atomic():
        revision.lock()
        rows = SSHKey.objects.active().filter(fingerprint__in=[key.fingerprint for key in keys])
        known = {row.fingerprint: row for row in rows.select_related("user")}
        taken = [key for key in known.values() if key.user_id != user.pk]
        if not taken:
            return _add(actor, user, keys, known)
    # After the transaction, which changed nothing: staff must see the attempt.
    for key in taken:
        detail = {"fingerprint": key.fingerprint, "reason": "in use", "owner": key.user.username}
        audit.record(actor=actor, verb="key.refused", object=user.username, detail=detail)
    raise KeyRefused(TAKEN)


def _add(actor: str, user: User, keys: Sequence[PublicKey], known: dict[str, SSHKey]) -> AddedKeys:
    user = User.objects.select_for_update().get(pk=user.pk)
    if not user.is_active:
        raise KeyRefused("This account is locked out. Ask the lab's staff.")
    result = AddedKeys(already=list(known.values()))
    new = [key for key in keys if key.fingerprint not in known]
    if user.ssh_keys.active().count() + len(new) > sshkeys.MAX_KEYS:
        raise KeyRefused(f"You can have at most {sshkeys.MAX_KEYS} keys. Remove some that you no longer use.")
    if not new:
        return result
    for key in new:
        parts = {"key_type": key.type, "blob": key.blob, "comment": key.comment}
        result.added.append(SSHKey.objects.create(user=user, fingerprint=key.fingerprint, **parts))
    number = revision.increment([user])
    for row in result.added:
        audit.record(actor=actor, verb="key.added", object=user.username, detail=_detail(row, number))
    return result


def revoke_key(*, actor: str, key: SSHKey) -> bool:
    """Remove one key, as its owner wants; False if it was removed already."""
    return revoke_keys(actor=actor, keys=[key], confirmed=actor == key.user.username) == 1


@transaction.atomic
def revoke_keys(*, actor: str, keys: Iterable[SSHKey], confirmed: bool = False) -> int:
    """Remove these keys under one revision; return how many were still active. `confirmed`: see revision.increment."""
    revision.lock()
    wanted = [key.pk for key in keys]
    active = list(SSHKey.objects.active().filter(pk__in=wanted).select_related("user"))
    if not active:
        return 0
    SSHKey.objects.filter(pk__in=[key.pk for key in active]).update(revoked_at=timezone.now())
    number = revision.increment({key.user for key in active}, confirmed=confirmed)
    for key in active:
        audit.record(actor=actor, verb="key.removed", object=key.user.username, detail=_detail(key, number))
    return len(active)


@transaction.atomic
def push_again(*, user: User) -> int:
    """A new revision in which nothing changes, so that servers write this person's keys again; return it."""
    return revision.increment([user])


def _detail(key: SSHKey, number: int) -> dict[str, str | int]:
    return {"fingerprint": key.fingerprint, "type": key.key_type, "comment": key.comment, "revision": number}
