"""Sign-in, lock-out, renaming and deletion of people."""

import logging
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import F, ProtectedError
from knox.models import AuthToken

from accounts import directory
from accounts.models import Port, SSHKey, SubuidRange, User
from accounts.services import audit, keys, numbers, revision
from accounts.signals import locked_out

log = logging.getLogger(__name__)


class PersonRefused(Exception):
    """The password was right, but this person cannot sign in; the message is for them."""


class PersonInUse(Exception):
    """The person cannot be deleted yet; the message says why."""


@dataclass(frozen=True)
class SyncNames:
    """Outcome of sync_names: names of people whose full name changed, who are missing there, or unchanged."""

    updated: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


def admit(person: directory.Person) -> User | None:
    """The user for a person whose password the directory has just accepted; None if they are locked out.

    The directory id identifies the person. A name that belongs to somebody else is refused until staff have
    deleted that account: the former owner's keys, numbers and containers never pass to the new one.
    """
    user = User.objects.select_related("port", "subuids").filter(directory_id=person.directory_id).first()
    if user is None:
        return _join(person)
    if not user.is_active:
        return None
    _refresh(user, person)
    _number(user)
    return user


def signed_in(*, user: User) -> tuple[Port, SubuidRange]:
    """Give the person a port and a block of subordinate ids, unless they have them. Raises PersonRefused."""
    if hasattr(user, "port") and hasattr(user, "subuids"):
        return user.port, user.subuids
    try:
        return numbers.assign(user)
    except numbers.NumbersExhausted as error:
        log.error("%s cannot be given numbers: %s", user.username, error)
        raise PersonRefused(str(error)) from None


def _number(user: User) -> None:
    try:
        signed_in(user=user)
    except PersonRefused:
        if not user.is_staff:  # staff must be able to sign in to widen the ranges
            raise


def _join(person: directory.Person) -> User | None:
    """Create a person and their numbers in one transaction, once even if they sign in twice at the same time."""
    with transaction.atomic():
        revision.lock()
        user = User.objects.filter(directory_id=person.directory_id).first()
        if user is None and not User.objects.filter(username=person.name).exists():
            user = _create(person)
        if user is not None:
            _number(user)
            return user if user.is_active else None
    detail = {"reason": "the name belongs to another account", "directory_id": person.directory_id}
    audit.record(actor=person.name, verb="person.refused", object=person.name, detail=detail)
    raise PersonRefused(f"The name {person.name} belonged to somebody else here. Ask the lab's staff to free it.")


def _create(person: directory.Person) -> User:
    is_staff = bool(person.is_staff)
    fields: dict[str, Any] = {"display_name": person.full_name, "is_staff": is_staff, "is_superuser": is_staff}
    user = User.objects.create_user(person.name, directory_id=person.directory_id, **fields)
    audit.record(actor=person.name, verb="person.created", object=person.name)
    return user


@transaction.atomic
def _refresh(user: User, person: directory.Person) -> None:
    changed: dict[str, str | bool] = {}
    if person.full_name and person.full_name != user.display_name:
        changed["display_name"] = person.full_name
    if person.is_staff is not None and {user.is_staff, user.is_superuser} != {person.is_staff}:
        changed |= {"is_staff": person.is_staff, "is_superuser": person.is_staff}
    if not changed:
        return
    for name, value in changed.items():
        setattr(user, name, value)
    user.save(update_fields=list(changed))
    if "is_staff" in changed:
        audit.record(actor="directory", verb="person.staff", object=user.username, detail={"is_staff": user.is_staff})


@transaction.atomic
def set_active(*, actor: str, user: User, active: bool, confirmed: bool = False) -> bool:
    """Unlock a person or lock them out, here and on all servers; they keep their keys. False if nothing changed.

    `confirmed`: a person has confirmed the removal of their keys from the servers.
    """
    revision.lock()
    if not User.objects.filter(pk=user.pk, is_active=not active).update(is_active=active):
        return False
    user.is_active = active
    verb, number = "person.unlocked" if active else "person.locked_out", revision.increment([user], confirmed=confirmed)
    audit.record(actor=actor, verb=verb, object=user.username, detail={"revision": number})
    if not active:
        end_sessions(user)
        transaction.on_commit(lambda: locked_out.send_robust(sender=User, user=user, actor=actor), robust=True)
    return True


def end_sessions(user: User) -> None:
    """Sign the person out everywhere: their sessions and API tokens are refused from now on."""
    User.objects.filter(pk=user.pk).update(sessions_ended=F("sessions_ended") + 1)
    AuthToken.objects.filter(user=user).delete()


def delete(*, actor: str, user: User) -> None:
    """Delete a locked-out person. Their numbers stay allocated, their keys stay in the audit log."""
    if user.is_active:
        raise PersonInUse("Lock this person out first, and wait until the servers have removed the keys.")
    try:
        with transaction.atomic():
            keys.revoke_keys(actor=actor, keys=SSHKey.objects.filter(user=user))
            SSHKey.objects.filter(user=user).delete()
            detail = {"display_name": user.display_name, "directory_id": user.directory_id}
            audit.record(actor=actor, verb="person.deleted", object=user.username, detail=detail)
            user.delete()
    except ProtectedError as error:
        kinds = sorted({str(thing._meta.verbose_name) for thing in error.protected_objects})
        raise PersonInUse(f"{user.username} still has: {', '.join(kinds)}. Remove them first.") from None


def sync_names(*, actor: str, dry_run: bool = False) -> SyncNames:
    """Store the full names of all active people that changed in the directory, and report who is missing there.

    Raises directory.DirectoryUnavailable and changes nothing then. Call it outside of any transaction.
    """
    if not directory.configured():
        return SyncNames()
    users = list(User.objects.active().filter(directory_id__isnull=False).order_by("username"))
    people = directory.look_up(user.username for user in users)
    result = SyncNames()
    for user in users:
        person = people.get(str(user.directory_id))
        if person is None:
            result.missing.append(user.username)
        elif not person.full_name or person.full_name == user.display_name:
            result.unchanged.append(user.username)
        else:
            result.updated.append(user.username)
            if not dry_run:
                _rename(actor, user, person.full_name)
    return result


@transaction.atomic
def _rename(actor: str, user: User, full_name: str) -> None:
    if User.objects.filter(pk=user.pk, display_name=user.display_name).update(display_name=full_name):
        detail = {"from": user.display_name, "to": full_name}
        audit.record(actor=actor, verb="person.renamed", object=user.username, detail=detail)
