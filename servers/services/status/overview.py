"""What people may know: their keys, their ~/.ssh/config, and on which servers their keys are live."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Case, Count, IntegerField, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce

from accounts.models import SSHKey, User
from accounts.services import keys
from servers import messages, ssh_config
from servers.models import Container, Placement, Push, Server
from servers.services.status import key_status
from servers.services.status.key_status import KeyOnServer, KeyStatus

LIVE, PUSHING, BEHIND, FAILED, NO_KEY = "live", "pushing", "behind", "failed", "no key"
OTHERS = (BEHIND, FAILED)
MAX_PEOPLE = 200  # rows of one push on a page
MAX_REMOVED = 50  # of a person's removed keys, the last ones: older ones are gone or shown in the admin


@dataclass(frozen=True)
class ServerView:
    """One server as one person sees it. `own` is what it said of her files; `people` is for staff only."""

    server: Server
    state: str
    reason: str
    since: datetime | None
    container: Container | None
    own: Placement | None
    push: Push | None
    people: list[tuple[str, dict[str, Any]]]
    hidden: int = 0

    @property
    def next_try(self) -> datetime | None:
        return self.server.next_attempt if self.state in (BEHIND, FAILED) else None

    @property
    def words(self) -> str:
        """`gpu9: no route, since 10:02, next try 10:06`."""
        words = f"{self.server.name}: {self.reason or self.state}"
        if self.since is not None:
            words += f", since {key_status.format_time(self.since)}"
        return words + (f", next try {key_status.format_time(self.next_try)}" if self.next_try is not None else "")


def active_keys(user: User) -> QuerySet[SSHKey]:
    return SSHKey.objects.filter(user=user, revoked_revision__isnull=True).order_by("pk")


def ssh_config_of(user: User, port: int) -> str:
    servers = Server.objects.filter(enabled=True).order_by("name")
    targets = [ssh_config.Target(server.name, server.address, server.ssh_port) for server in servers]
    return ssh_config.render(targets, user=user.username, port=port)


def statuses_of(user: User, *, servers: Sequence[Server] | None = None) -> list[KeyStatus]:
    """Where this person's keys are: the active ones, then removed ones that a server may still accept."""
    removed = SSHKey.objects.filter(user=user, revoked_revision__isnull=False).order_by("-revoked_revision")
    rows = [*active_keys(user).select_related("user"), *removed.select_related("user")[:MAX_REMOVED]]
    return [
        status for status in key_status.status_of(rows, servers=servers) if status.key.is_active or status.elsewhere
    ]


def servers_for(user: User, statuses: Sequence[KeyStatus]) -> list[ServerView]:
    """Every server in service, by name, with what concerns this person, or everybody if she is staff."""
    servers = key_status.sorted_by_name(Server.objects.filter(enabled=True))
    pushes = _last_pushes(servers, whole=user.is_staff)
    running = set(Push.objects.filter(state=Push.State.RUNNING, server__in=servers).values_list("server_id", flat=True))
    containers = {row.server_id: row for row in Container.objects.filter(user=user)}
    placements = {row.server_id: row for row in Placement.objects.filter(user=user)}
    current = keys.current_revision()
    views = []
    for server in servers:
        own = [one for status in statuses for one in status.servers if one.server.pk == server.pk]
        place = placements.get(server.pk)
        state, reason, since = _for_staff(server, current) if user.is_staff else _for_person(server, own, place)
        if server.pk in running and state in (BEHIND, FAILED):
            state, reason, since = PUSHING, "", None
        push = pushes.get(server.pk)
        shown = _telling(push.results) if push is not None and user.is_staff else []
        views.append(
            ServerView(
                server,
                state,
                reason,
                since,
                containers.get(server.pk),
                place,
                push,
                shown[:MAX_PEOPLE],
                max(len(shown) - MAX_PEOPLE, 0),
            )
        )
    return views


def summary(views: Sequence[ServerView]) -> str:
    """`live on 16 of 17 servers`."""
    live = sum(1 for view in views if view.state == LIVE)
    return f"live on {live} of {key_status.count_servers(len(views))}"


def _last_pushes(servers: Collection[Server], *, whole: bool) -> dict[int, Push]:
    """The last push that the server answered, by server; `results` tell of others and are for staff."""
    answered = Push.objects.filter(
        server=OuterRef("pk"), state__in=[Push.State.SUCCEEDED, Push.State.PARTIAL]
    ).order_by("-pk")
    last = Server.objects.filter(pk__in=[server.pk for server in servers])
    numbers = last.annotate(last=Subquery(answered.values("pk")[:1])).values_list("last", flat=True)
    rows = Push.objects.filter(pk__in=[number for number in numbers if number])
    return {row.server_id: row for row in (rows if whole else rows.defer("results", "error"))}


def _for_person(
    server: Server, own: Sequence[KeyOnServer], place: Placement | None
) -> tuple[str, str, datetime | None]:
    """State, reason and since when; `own` is each of her keys on this server."""
    if not own:
        return NO_KEY, "", None
    waiting = next((one for one in own if one.state in key_status.OPEN), None)
    if waiting is None:
        return LIVE, "", None
    if place is not None and place.failed and waiting.reason == messages.phrase(place.error, "person"):
        return FAILED, waiting.reason, waiting.since
    if server.last_error or not server.enabled:
        return BEHIND, waiting.reason, waiting.since
    return PUSHING, "", None


def _for_staff(server: Server, current: int) -> tuple[str, str, datetime | None]:
    error = messages.phrase(server.last_error)
    if server.applied_revision >= current and server.applied_digest:
        return (FAILED, error, server.behind_since) if error else (LIVE, "", None)
    if server.attempted_revision < current and not server.last_error:
        return PUSHING, "", None
    return BEHIND, error, server.behind_since


def _telling(results: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Failed ones first, then what was written; people for whom nothing changed are only counted."""
    outcomes = {name: {row["host"], row["container"]} for name, row in results.items()}
    rows = [(name, row) for name, row in results.items() if {"failed", "written"} & outcomes[name]]
    return sorted(rows, key=lambda item: ("failed" not in outcomes[item[0]], item[0]))


def keys_pending() -> Combinable:
    """For a queryset of servers: how many keys came or went since what each has confirmed."""
    came = Q(added_revision__gt=OuterRef("applied_revision"), revoked_revision__isnull=True)
    went = Q(added_revision__lte=OuterRef("applied_revision"), revoked_revision__gt=OuterRef("applied_revision"))
    counted = _count(SSHKey.objects.filter(came | went, user__is_active=True))
    return Case(When(applied_revision__gte=keys.current_revision(), then=0), default=counted)


def people_failing() -> Combinable:
    """The same: of how many people a key file there could not be written."""
    failed = Q(host=Placement.State.FAILED) | Q(container=Placement.State.FAILED)
    return _count(Placement.objects.filter(failed, server=OuterRef("pk")))


def _count(rows: QuerySet[Any]) -> Combinable:
    counted = rows.order_by().annotate(one=Value(1)).values("one").annotate(count=Count("pk")).values("count")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)
