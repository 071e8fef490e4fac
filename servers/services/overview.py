"""What people may know: their keys, their ~/.ssh/config, and on which servers their keys are live."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Max, OuterRef, QuerySet, Subquery
from django.db.models.fields.json import KeyTransform

from accounts.models import SSHKey, User
from accounts.services import keys
from servers import ssh_config
from servers.models import Container, Server, Sync

LIVE, PUSHING, BEHIND, FAILED = "live", "pushing", "behind", "failed"
MAX_PEOPLE = 200  # rows of one push on a page


@dataclass(frozen=True)
class ServerView:
    """One server as one person sees it. `own` is her row of the last push; `people` is for staff only."""

    server: Server
    state: str
    reason: str
    container: Container | None
    sync: Sync | None
    own: dict[str, str] | None
    people: list[tuple[str, dict[str, str]]]
    hidden: int = 0

    @property
    def since(self) -> datetime | None:
        return self.server.behind_since if self.state in (BEHIND, FAILED) else None

    @property
    def next_try(self) -> datetime | None:
        return self.server.next_attempt if self.state in (BEHIND, FAILED) else None


def active_keys(user: User) -> QuerySet[SSHKey]:
    return SSHKey.objects.filter(user=user, revoked_revision__isnull=True).order_by("pk")


def ssh_config_of(user: User, port: int) -> str:
    servers = Server.objects.filter(enabled=True).order_by("name")
    targets = [ssh_config.Target(server.name, server.address, server.ssh_port) for server in servers]
    return ssh_config.render(targets, user=user.username, port=port)


def servers_for(user: User) -> list[ServerView]:
    """Every server in service, by name, with what concerns this person, or everybody if she is staff."""
    wanted = _own_revision(user)
    servers = list(Server.objects.filter(enabled=True).order_by("name"))
    syncs = _last_syncs(servers, user, whole=user.is_staff)
    running = set(Sync.objects.filter(state=Sync.State.RUNNING, server__in=servers).values_list("server_id", flat=True))
    containers = {row.server_id: row for row in Container.objects.filter(user=user)}
    views = []
    for server in servers:
        sync = syncs.get(server.pk)
        own = getattr(sync, "own", None)
        state, reason = _state(server, own, wanted, is_running=server.pk in running, for_staff=user.is_staff)
        shown = _telling(sync.results) if sync is not None and user.is_staff else []
        views.append(
            ServerView(
                server,
                state,
                reason,
                containers.get(server.pk),
                sync,
                own,
                shown[:MAX_PEOPLE],
                max(len(shown) - MAX_PEOPLE, 0),
            )
        )
    return views


def _own_revision(user: User) -> int:
    """The revision of the last change to this person's keys; all changes count for staff."""
    if user.is_staff:
        return keys.current_revision()
    changes = SSHKey.objects.filter(user=user).aggregate(added=Max("added_revision"), gone=Max("revoked_revision"))
    return max(changes["added"] or 0, changes["gone"] or 0)


def _last_syncs(servers: Collection[Server], user: User, *, whole: bool) -> dict[int, Sync]:
    """The last push that the server answered, by server; `results` of others are not even read for people."""
    answered = Sync.objects.filter(
        server=OuterRef("pk"), state__in=[Sync.State.SUCCEEDED, Sync.State.PARTIAL]
    ).order_by("-pk")
    last = Server.objects.filter(pk__in=[server.pk for server in servers])
    numbers = last.annotate(last=Subquery(answered.values("pk")[:1])).values_list("last", flat=True)
    rows: QuerySet[Any] = Sync.objects.filter(pk__in=[number for number in numbers if number])
    rows = rows.annotate(own=KeyTransform(user.username, "results"))
    return {row.server_id: row for row in (rows if whole else rows.defer("results", "error"))}


def _state(
    server: Server, own: dict[str, str] | None, wanted: int, *, is_running: bool, for_staff: bool
) -> tuple[str, str]:
    if is_running:
        return PUSHING, ""
    if server.applied_revision >= wanted and server.applied_digest:
        if own is not None and own["error"]:
            return FAILED, own["error"]
        if for_staff and server.last_error:
            return FAILED, server.last_error
        return LIVE, ""
    if server.attempted_revision < wanted and not server.last_error:
        return PUSHING, ""
    return BEHIND, server.last_error


def _telling(results: dict[str, dict[str, str]]) -> list[tuple[str, dict[str, str]]]:
    """Failed ones first, then what was written; people for whom nothing changed are only counted."""
    rows = [(name, row) for name, row in results.items() if {"failed", "written"} & set(row.values())]
    return sorted(rows, key=lambda item: ("failed" not in item[1].values(), item[0]))
