"""Every verb that changes SSH keys, and what the servers should hold."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from django.db import transaction
from django.utils import timezone

from accounts import sshkeys
from accounts.models import SSHKey, User
from accounts.services import audit, revision
from accounts.sshkeys import KeyRefused, PublicKey

TAKEN = "One of these keys is already in use by another account. Make a new key, or ask the staff of the lab."


@dataclass(frozen=True)
class AddedKeys:
    """What a paste did: keys that are new, and keys that the person already had."""

    added: list[SSHKey] = field(default_factory=list)
    already: list[SSHKey] = field(default_factory=list)


@dataclass(frozen=True)
class KeyState:
    """What every server should hold at this revision; a person without keys is left out."""

    revision: int
    users: dict[str, list[PublicKey]]
    ids: dict[str, int]  # name -> the first of her subordinate ids: the name may be another's one day, they never are


def current_revision() -> int:
    return revision.current()


def current_state() -> KeyState:
    """The keys of all active people who have a port, by name, each person's in the order of adding.

    Every change raises the revision in its own transaction: what was read between two looks at the same number
    belongs to it, also where each query sees what was committed last (READ COMMITTED).
    """
    while True:
        number = revision.current()
        users, ids = _active_keys()
        if revision.current() == number:
            return KeyState(number, users, ids)


def _active_keys() -> tuple[dict[str, list[PublicKey]], dict[str, int]]:
    rows = SSHKey.objects.filter(revoked_revision__isnull=True, user__is_active=True, user__port__isnull=False)
    users: dict[str, list[PublicKey]] = {}
    ids: dict[str, int] = {}
    of_person = ("user__username", "user__subuids__start")
    for name, start, *key in rows.order_by("pk").values_list(*of_person, "key_type", "blob", "comment"):
        users.setdefault(name, []).append(PublicKey(*key))
        if start is not None:  # without them a host serves nobody of that name, and says so
            ids[name] = start
    return users, ids


def changed_since(number: int) -> list[str]:
    """Names of the people of whom servers hold something else than at revision `number`."""
    return list(User.objects.filter(keys_revision__gt=number).values_list("username", flat=True))


def add_keys(*, actor: str, user: User, pasted: str) -> AddedKeys:
    """Add all pasted keys or none. Raises KeyRefused, with one reason for each refused line."""
    keys = sshkeys.parse(pasted)
    with transaction.atomic():
        revision.lock()
        known = _active(keys)
        taken = [key for key in known.values() if key.user_id != user.pk]
        if not taken:
            return _add(actor, user, keys, known)
    # Outside the transaction that came to nothing: the staff must see the attempt.
    for key in taken:
        audit.record(
            actor=actor,
            verb="key.refused",
            object=user.username,
            detail={"fingerprint": key.fingerprint, "reason": "in use", "owner": key.user.username},
        )
    raise KeyRefused(TAKEN)


def _active(keys: list[PublicKey]) -> dict[str, SSHKey]:
    rows = SSHKey.objects.select_related("user").filter(
        fingerprint__in=[key.fingerprint for key in keys], revoked_revision__isnull=True
    )
    return {row.fingerprint: row for row in rows}


def _add(actor: str, user: User, keys: list[PublicKey], known: dict[str, SSHKey]) -> AddedKeys:
    user = User.objects.select_for_update().get(pk=user.pk)
    if not user.is_active:
        raise KeyRefused("This account is locked: ask the staff of the lab.")
    result = AddedKeys(already=list(known.values()))
    new = [key for key in keys if key.fingerprint not in known]
    if user.ssh_keys.filter(revoked_revision__isnull=True).count() + len(new) > sshkeys.MAX_KEYS:
        raise KeyRefused(f"A person may have {sshkeys.MAX_KEYS} keys: remove some that you no longer use first.")
    if not new:
        return result
    number = revision.increment([user])
    for key in new:
        row = SSHKey.objects.create(
            user=user,
            key_type=key.type,
            blob=key.blob,
            fingerprint=key.fingerprint,
            comment=key.comment,
            added_revision=number,
        )
        result.added.append(row)
        audit.record(actor=actor, verb="key.added", object=user.username, detail=_detail(row, number))
    return result


def revoke_key(*, actor: str, key: SSHKey) -> bool:
    """Remove one key for ever; False if it was already removed."""
    return revoke_keys(actor=actor, keys=[key]) == 1


@transaction.atomic
def revoke_keys(*, actor: str, keys: Iterable[SSHKey]) -> int:
    """Remove these keys under one revision; gives how many were still active."""
    revision.lock()
    wanted = [key.pk for key in keys]
    active = list(SSHKey.objects.select_related("user").filter(pk__in=wanted, revoked_revision__isnull=True))
    if not active:
        return 0
    number = revision.increment({key.user for key in active})
    SSHKey.objects.filter(pk__in=[key.pk for key in active]).update(revoked_revision=number, revoked_at=timezone.now())
    for key in active:
        audit.record(actor=actor, verb="key.removed", object=key.user.username, detail=_detail(key, number))
    return len(active)


def _detail(key: SSHKey, number: int) -> dict[str, str | int]:
    return {
        "fingerprint": key.fingerprint,
        "type": key.key_type,
        "comment": key.comment,
        "revision": number,
    }
