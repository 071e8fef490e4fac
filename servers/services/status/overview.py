"""What a person sees of the servers: their keys, their ~/.ssh/config, and the state of each server for them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Case, Count, IntegerField, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce

from accounts.models import KeyRange, SSHKey, User
from accounts.services import keys
from servers import ssh_config
from servers.models import Container, Placement, Push, Server
from servers.services.status import key_ranges, key_status
from servers.services.status.key_status import KeyOnServer, KeyStatus, OnServer, State

NO_KEYS = "no keys"
MAX_PEOPLE = 200  # rows of one push on a page
MAX_REMOVED = 50  # latest removed keys of a person; the admin shows older ones


@dataclass(frozen=True)
class ServerView(OnServer):
    """A server as one person sees it. `own`: their key files there; `people`: results of others, for staff only."""

    container: Container | None
    own: Placement | None
    push: Push | None
    people: list[tuple[str, dict[str, Any]]]
    hidden: int = 0


def active_keys(user: User) -> QuerySet[SSHKey]:
    return SSHKey.objects.active().filter(user=user).order_by("pk")


def ssh_config_of(user: User, port: int) -> str:
    servers = Server.objects.in_service().order_by("name")
    targets = [ssh_config.Target(server.name, server.address, server.ssh_port) for server in servers]
    return ssh_config.render(targets, user=user.username, port=port)


def statuses_of(user: User, *, servers: Sequence[Server] | None = None) -> list[KeyStatus]:
    """Where this person's keys are: the active ones, then removed ones that a server may still accept."""
    removed = SSHKey.objects.revoked().filter(user=user).order_by("-revoked_at", "-pk")
    rows = [*active_keys(user).select_related("user"), *removed.select_related("user")[:MAX_REMOVED]]
    return [
        status for status in key_status.status_of(rows, servers=servers) if status.key.is_active or status.unfinished
    ]


def servers_for(user: User, statuses: Sequence[KeyStatus], *, with_people: bool = False) -> list[ServerView]:
    """Every server in service, by name, with this person's state there; `with_people`: and the results of others."""
    servers = key_status.sorted_by_name(Server.objects.in_service())
    pushes = _last_pushes(servers, whole=with_people)
    containers = {row.server_id: row for row in Container.objects.filter(user=user)}
    placements = {row.server_id: row for row in Placement.objects.filter(user=user)}
    views = []
    for server in servers:
        one, push = state_for(server, statuses), pushes.get(server.pk)
        state = (one.state, one.since, one.reason) if one else (NO_KEYS, None, "")
        people = _changed_people(push.results) if push is not None and with_people else []
        here = containers.get(server.pk), placements.get(server.pk), push
        views.append(ServerView(server, *state, *here, people[:MAX_PEOPLE], max(len(people) - MAX_PEOPLE, 0)))
    return views


def state_for(server: Server, statuses: Sequence[KeyStatus]) -> KeyOnServer | None:
    """A person's state on a server: that of the key that is furthest from where it should be; None without keys."""
    here = [(status.is_wanted, one) for status in statuses for one in status.servers if one.server.pk == server.pk]
    relevant = [one for is_wanted, one in here if is_wanted or one.state == State.REMOVING]
    return key_status.worst(relevant) if relevant else None


def summary(views: Sequence[ServerView]) -> str:
    """`live on 16 of 17 servers`."""
    live = sum(1 for view in views if view.state in key_status.USABLE)
    return f"live on {live} of {key_status.count_servers(len(views))}"


def _last_pushes(servers: Collection[Server], *, whole: bool) -> dict[int, Push]:
    """The last push that the server answered, by server; without `results`, which name others, unless `whole`."""
    answered = Push.objects.filter(
        server=OuterRef("pk"), state__in=[Push.State.SUCCEEDED, Push.State.PARTIAL]
    ).order_by("-pk")
    last = Server.objects.filter(pk__in=[server.pk for server in servers])
    numbers = last.annotate(last=Subquery(answered.values("pk")[:1])).values_list("last", flat=True)
    rows = Push.objects.filter(pk__in=[number for number in numbers if number])
    return {row.server_id: row for row in (rows if whole else rows.defer("results", "error"))}


def _changed_people(results: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """People with an error, then those whose key files were written; the others are only counted."""
    rows = [
        (name, row) for name, row in results.items() if row["error"] or "written" in (row["host"], row["container"])
    ]
    return sorted(rows, key=lambda item: (not item[1]["error"], item[0]))


def keys_pending() -> Combinable:
    """For a queryset of servers: how many keys each lacks or may still have to remove."""
    held = OuterRef("state__applied_revision")
    unconfirmed = OuterRef("state__unconfirmed_first"), OuterRef("state__unconfirmed_last")
    removing = key_ranges.leftover(held, *unconfirmed) & ~Q(key__in=KeyRange.objects.open().values("key"))
    return Case(
        When(state__ahead_since__isnull=False, then=_count(KeyRange.objects.open(), distinct="key")),
        When(state__applied_revision__gte=keys.current_revision(), then=0),
        When(enabled=False, then=_count(KeyRange.objects.filter(removing), distinct="key")),
        default=_count(KeyRange.objects.filter(key_ranges.missing(held) | removing), distinct="key"),
    )


def people_failing() -> Combinable:
    """For a queryset of servers: of how many people each could not write a key file."""
    return _count(Placement.objects.failed().filter(server=OuterRef("pk")))


def _count(rows: QuerySet[Any], distinct: str = "pk") -> Combinable:
    counted = rows.order_by().annotate(one=Value(1)).values("one")
    counted = counted.annotate(count=Count(distinct, distinct=True)).values("count")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)
