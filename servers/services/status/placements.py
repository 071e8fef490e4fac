"""Store what servers report of people's key files and containers, and which revisions they confirmed."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Count, QuerySet

from accounts.models import KeyRange, User
from servers.models import Confirmation, Container, Placement, Server, ServerState
from servers.protocol import Answer, ContainerFact, Message, UserResult

State = Placement.State
MAX_CONFIRMATIONS = 1000  # of each server, before those that no key needs are deleted
FIELDS = ["host", "host_since", "container", "container_since", "error", "refused", "last_good_revision"]


def record_confirmations(answers: Iterable[tuple[Server, Answer]], *, now: datetime) -> None:
    """These servers have applied a push."""
    rows = [Confirmation(server=server, revision=answer.revision, confirmed_at=now) for server, answer in answers]
    Confirmation.objects.bulk_create(rows, ignore_conflicts=True)  # the first time counts


def record_answer(server: Server, answer: Answer, *, whole: bool, now: datetime) -> None:
    """Store the answer to a push that was applied. `server` is its row as before the push.

    If the answer is not `whole` (the push named the changed people only), the rows of others stay as they are:
    the host has applied the change to exactly what it held.
    """
    outcome = _state(answer.register)
    if answer.register and outcome != server.state.register_outcome:
        ServerState.objects.filter(pk=server.pk).update(register_outcome=outcome, register_since=now)
    among = None if whole else answer.users.keys()
    _record_people(server, answer.users, among, now)
    record_containers(server, answer.containers, now=now, among=among)


def record_containers(
    server: Server, facts: Mapping[str, ContainerFact], *, now: datetime, among: Collection[str] | None = None
) -> int:
    """Bring the containers' rows up to date with a report of all people, or of `among`; return how many are new."""
    mine = Container.objects.filter(server=server)
    mine = mine if among is None else mine.filter(user__username__in=among)
    rows = {name: (pk, known) for name, pk, *known in mine.values_list("user__username", "pk", "state", "address")}
    people = User.objects.filter(username__in=facts.keys() - rows.keys())
    seen = {name: {"state": fact.state, "address": fact.address} for name, fact in facts.items()}
    new = [Container(server=server, user=user, last_seen=now, **seen[user.username]) for user in people]
    Container.objects.bulk_create(new)
    mine.filter(pk__in=[pk for name, (pk, _) in rows.items() if name not in facts]).delete()
    for name, (pk, known) in rows.items():
        if name in seen and known != list(seen[name].values()):
            Container.objects.filter(pk=pk).update(**seen[name])
    mine.update(last_seen=now)
    return len(new)


def prune() -> int:
    """Delete confirmations that no key needs: all but the first of each wanted key, and each server's last."""
    counted = Server.objects.annotate(confirmed=Count("confirmations"))
    crowded = list(counted.filter(confirmed__gt=MAX_CONFIRMATIONS).values_list("pk", flat=True))
    starts = sorted(set(KeyRange.objects.open().values_list("start", flat=True))) if crowded else []
    return sum(_prune(server, starts) for server in crowded)


def _prune(server: int, starts: Sequence[int]) -> int:
    rows = list(Confirmation.objects.filter(server=server).order_by("revision").values_list("revision", "pk"))
    revisions = [revision for revision, _ in rows]
    needed = {bisect_left(revisions, number) for number in starts} | {len(rows) - 1}
    idle = [pk for place, (_, pk) in enumerate(rows) if place not in needed]
    return Confirmation.objects.filter(pk__in=idle).delete()[0]


def forget_confirmations(server: Server, *, above: int) -> None:
    """The server holds an older revision than it once confirmed, as after its state was lost."""
    Confirmation.objects.filter(server=server, revision__gt=above).delete()


def _record_people(
    server: Server, results: Mapping[str, UserResult], among: Collection[str] | None, now: datetime
) -> None:
    mine: QuerySet[Placement] = Placement.objects.filter(server=server)
    mine = mine if among is None else mine.filter(user__username__in=among)
    # Usually few of thousands of rows changed: load only those.
    known_rows = mine.values_list("user__username", "pk", "host", "container", "error", "refused")
    rows = {name: (pk, tuple(known)) for name, pk, *known in known_rows}
    here = {name: result for name, result in results.items() if not result.is_elsewhere}
    mine.filter(pk__in=[pk for name, (pk, _) in rows.items() if name not in here]).delete()
    stale = [pk for name, (pk, known) in rows.items() if name in here and known != _states(here[name])]
    changed = list(mine.filter(pk__in=stale).select_related("user"))
    for row in changed:
        _change(row, here[row.user.username], server, now)
    Placement.objects.bulk_update(changed, FIELDS, batch_size=100)
    people = User.objects.filter(username__in=here.keys() - rows.keys())
    new = [Placement(server=server, user=user) for user in people]
    for row in new:
        _change(row, here[row.user.username], server, now)
        row.last_good_revision = 0
    Placement.objects.bulk_create(new, batch_size=500)


def _states(result: UserResult) -> tuple[State, State, Message | None, dict[str, Any]]:
    return _state(result.host), _state(result.container), result.error, result.refused_as_json()


def _change(row: Placement, result: UserResult, server: Server, now: datetime) -> None:
    """Bring the row, not saved here, up to date."""
    host, container, row.error, row.refused = _states(result)
    if result.failed and not row.failed:
        row.last_good_revision = server.state.applied_revision
    if row.host != host:
        row.host, row.host_since = host, now
    if row.container != container:
        row.container, row.container_since = container, now


def _state(outcome: str) -> State:
    """For an outcome of the protocol."""
    if outcome in ("written", "unchanged"):
        return State.GOOD
    return State.FAILED if outcome == "failed" else State.ABSENT
