"""How far the servers lag behind: the age of the oldest change that one of them does not have yet."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Min, Q, QuerySet
from django.utils import timezone

from accounts.models import KeyRange
from accounts.services import keys
from servers.models import Server


@dataclass(frozen=True)
class Backlog:
    """`servers` in service are behind; `seconds` is the age of the oldest missing change, None if none is missing."""

    servers: int
    seconds: int | None


def behind() -> QuerySet[Server]:
    """The servers in service that lack a change, are ahead, or on which a person's key file could not be written."""
    late = Q(state__applied_revision__lt=keys.current_revision()) | Q(state__behind_since__isnull=False)
    return Server.objects.in_service().filter(late | Q(state__ahead_since__isnull=False))


def ahead() -> QuerySet[Server]:
    """The servers in service that have a revision that is not in this database."""
    return Server.objects.in_service().filter(state__ahead_since__isnull=False)


def measure() -> Backlog:
    states = [server.state for server in behind()]
    if not states:
        return Backlog(0, None)
    # A server that has never had any keys lacks them since the first attempt, not since the first key.
    served = [state.applied_revision for state in states if state.applied_digest]
    since = [moment for state in states for moment in (state.behind_since, state.ahead_since)]
    moments = [moment for moment in since if moment is not None]
    if served:
        moments += _changes_after(min(served))
    oldest = min(moments, default=None)
    return Backlog(len(states), None if oldest is None else max(0, int((timezone.now() - oldest).total_seconds())))


def _changes_after(revision: int) -> Iterable[datetime]:
    """When the first key after this revision became wanted, and when the first was no longer wanted."""
    started = KeyRange.objects.filter(start__gt=revision).aggregate(at=Min("started_at"))["at"]
    ended = KeyRange.objects.filter(until__gt=revision).aggregate(at=Min("ended_at"))["at"]
    return [moment for moment in (started, ended) if moment is not None]
