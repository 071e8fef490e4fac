"""Where a server has whose keys and whose container: rows made equal to what it told."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from django.db.models import Count, QuerySet

from accounts.models import SSHKey, User
from servers.models import Confirmation, Container, Placement, Server
from servers.protocol import Answer, ContainerFact, UserResult

State = Placement.State
KEPT_CONFIRMATIONS = 1000  # of each server, before it is asked which of them still matter
FIELDS = ["host", "host_since", "container", "container_since", "error", "kept_revision"]


def record_confirmations(answers: Iterable[tuple[Server, Answer]], *, now: datetime) -> None:
    """These servers have applied what was pushed to them."""
    rows = [Confirmation(server=server, revision=answer.revision, confirmed_at=now) for server, answer in answers]
    Confirmation.objects.bulk_create(rows, ignore_conflicts=True)  # the first time counts


def record_answer(server: Server, answer: Answer, *, whole: bool, now: datetime) -> None:
    """Write down the answer to a push that was applied. `server` is its row as before the push.

    Of an answer that is not `whole` (the push named the changed people only) the others stay as they were:
    the host has applied the change to exactly what it held.
    """
    outcome = _state(answer.register)
    if answer.register and outcome != server.register_outcome:
        Server.objects.filter(pk=server.pk).update(register_outcome=outcome, register_since=now)
    among = None if whole else answer.users.keys()
    _note_people(server, answer.users, among, now)
    record_containers(server, answer.containers, now=now, among=among)


def record_containers(
    server: Server, facts: Mapping[str, ContainerFact], *, now: datetime, among: Collection[str] | None = None
) -> int:
    """Make the rows of containers equal to what the server told; people unknown to the portal are left out.

    `among`: the names that it was asked about; None for everybody. Gives how many rows are new.
    """
    mine = Container.objects.filter(server=server)
    mine = mine if among is None else mine.filter(user__username__in=among)
    rows = {name: (pk, known) for name, pk, *known in mine.values_list("user__username", "pk", "state", "address")}
    people = User.objects.filter(username__in=facts.keys() - rows.keys())
    new = [Container(server=server, user=user, last_seen=now, **_fact(facts[user.username])) for user in people]
    Container.objects.bulk_create(new)
    mine.filter(pk__in=[pk for name, (pk, _) in rows.items() if name not in facts]).delete()
    for name, (pk, known) in rows.items():
        if name in facts and known != [facts[name].state, facts[name].address]:
            Container.objects.filter(pk=pk).update(**_fact(facts[name]))
    mine.update(last_seen=now)
    return len(new)


def prune() -> int:
    """Forget confirmations that no key needs: kept is the first one of each active key, and each server's last."""
    counted = Server.objects.annotate(told=Count("confirmations"))
    crowded = list(counted.filter(told__gt=KEPT_CONFIRMATIONS).values_list("pk", flat=True))
    active = SSHKey.objects.filter(revoked_revision__isnull=True) if crowded else SSHKey.objects.none()
    added = sorted(set(active.values_list("added_revision", flat=True)))
    return sum(_prune(server, added) for server in crowded)


def _prune(server: int, added: Sequence[int]) -> int:
    rows = list(Confirmation.objects.filter(server=server).order_by("revision").values_list("revision", "pk"))
    revisions = [revision for revision, _ in rows]
    needed = {bisect_left(revisions, number) for number in added} | {len(rows) - 1}
    idle = [pk for place, (_, pk) in enumerate(rows) if place not in needed]
    return Confirmation.objects.filter(pk__in=idle).delete()[0]


def forget_confirmations(server: Server, *, above: int) -> None:
    """The server holds less than it once confirmed, as after its state was lost."""
    Confirmation.objects.filter(server=server, revision__gt=above).delete()


def _note_people(server: Server, told: Mapping[str, UserResult], among: Collection[str] | None, now: datetime) -> None:
    mine: QuerySet[Placement] = Placement.objects.filter(server=server)
    mine = mine if among is None else mine.filter(user__username__in=among)
    # Of thousands mostly none are others now: only those are made objects.
    told_before = mine.values_list("user__username", "pk", "host", "container", "error")
    rows = {name: (pk, tuple(known)) for name, pk, *known in told_before}
    here = {name: result for name, result in told.items() if not result.is_elsewhere}
    mine.filter(pk__in=[pk for name, (pk, _) in rows.items() if name not in here]).delete()
    others = [pk for name, (pk, known) in rows.items() if name in here and known != _told(here[name])]
    changed = list(mine.filter(pk__in=others).select_related("user"))
    for row in changed:
        _change(row, here[row.user.username], server, now)
    Placement.objects.bulk_update(changed, FIELDS, batch_size=100)
    new = []
    for user in User.objects.filter(username__in=here.keys() - rows.keys()):
        row = Placement(server=server, user=user)
        _change(row, here[user.username], server, now)
        row.kept_revision = 0
        new.append(row)
    Placement.objects.bulk_create(new, batch_size=500)


def _told(result: UserResult) -> tuple[State, State, str]:
    return _state(result.host), _state(result.container), result.error.reason if result.error else ""


def _change(row: Placement, result: UserResult, server: Server, now: datetime) -> None:
    """Bring the row up to date."""
    host, container, error = _told(result)
    if result.failed and not row.failed:
        row.kept_revision = server.applied_revision
    if row.host != host:
        row.host, row.host_since = host, now
    if row.container != container:
        row.container, row.container_since = container, now
    row.error = error


def _state(outcome: str) -> State:
    """Of an outcome of the protocol."""
    if outcome in ("written", "unchanged"):
        return State.GOOD
    return State.FAILED if outcome == "failed" else State.ABSENT


def _fact(fact: ContainerFact) -> dict[str, str]:
    return {"state": fact.state, "address": fact.address}
