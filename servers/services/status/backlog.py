"""How far the servers lag behind: the age of the oldest change that one of them does not have yet."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Min, Q, QuerySet
from django.utils import timezone

from accounts.models import AuditEvent, SSHKey
from accounts.services import keys
from servers.models import Server
from servers.services.status import key_ranges


@dataclass(frozen=True)
class Backlog:
    """`servers` in service are behind; `seconds` is the age of the oldest missing change, None if none is."""

    servers: int
    seconds: int | None


def behind() -> QuerySet[Server]:
    """The servers in service that lack a change, or on which somebody could not be served."""
    late = Q(applied_revision__lt=keys.current_revision()) | Q(behind_since__isnull=False)
    return Server.objects.filter(late, enabled=True)


def measure() -> Backlog:
    rows = list(behind().values_list("applied_revision", "applied_digest", "behind_since"))
    if not rows:
        return Backlog(0, None)
    # A server that has never had any keys lacks them since the first try, not since the first key of all.
    served = [revision for revision, digest, _ in rows if digest]
    moments = [since for revision, digest, since in rows if since is not None]
    if served and min(served) < keys.current_revision():
        moments += _changes_after(min(served))
    oldest = min(moments, default=None)
    return Backlog(len(rows), None if oldest is None else max(0, int((timezone.now() - oldest).total_seconds())))


def _changes_after(revision: int) -> Iterable[datetime]:
    """When the first key after this revision was added and removed, and the first person locked out or let in."""
    added = SSHKey.objects.filter(added_revision__gt=revision).aggregate(at=Min("created_at"))
    removed = SSHKey.objects.filter(revoked_revision__gt=revision).aggregate(at=Min("revoked_at"))
    turns = AuditEvent.objects.filter(verb__in=[key_ranges.LOCKED, key_ranges.LET_IN], detail__revision__gt=revision)
    found = (added["at"], removed["at"], turns.aggregate(at=Min("at"))["at"])
    return [moment for moment in found if moment is not None]
