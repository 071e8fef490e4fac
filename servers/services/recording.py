"""What a push came to, written down on its Sync row, the server and its containers."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from accounts.models import User
from accounts.services import audit
from servers.dialing import RemoteError
from servers.models import Container, Server, Sync
from servers.protocol import Answer, ContainerFact

BACKOFF_FIRST, BACKOFF_MOST = 2.0, 300.0
KEPT_SYNCS = 50  # of each server
STALE = "it has applied a newer revision than the portal's; see 'Backup' in the administrators' guide"


@dataclass(frozen=True)
class Claim:
    """One server that is ours until `lease`; `attempts` counts this one too."""

    server: Server
    sync: Sync
    lease: datetime
    attempts: int


@dataclass(frozen=True)
class Outcome:
    """`answer` is None if nothing was applied; `offered` is a host key that was refused."""

    state: Sync.State
    revision: int
    digest: str = ""
    error: str = ""
    answer: Answer | None = None
    permanent: bool = False
    offered: str = ""


def judge(server: Server, revision: int, digest: str, answer: Answer) -> Outcome:
    """What the answer to a push of this revision and digest means."""
    if not answer.ok and answer.code != "partial":
        words = STALE if answer.code == "stale_revision" else answer.message or answer.code
        return Outcome(Sync.State.FAILED, revision, error=f"{server.name}: {words}.".replace("..", "."))
    if (answer.revision, answer.digest) != (revision, digest):
        return Outcome(Sync.State.FAILED, revision, error=f"{server.name}: it answers for another revision.")
    failed = sum(1 for result in answer.users.values() if result.failed)
    if failed or not answer.ok:
        who = "one person was" if failed == 1 else f"{failed} people were"
        words = "the keys of 'register' were not written" if answer.register == "failed" else f"{who} not served"
        return Outcome(Sync.State.PARTIAL, revision, digest, f"{server.name}: {words}.", answer)
    return Outcome(Sync.State.SUCCEEDED, revision, digest, "", answer)


def failure(revision: int, error: RemoteError) -> Outcome:
    return Outcome(Sync.State.FAILED, revision, error=error.message, permanent=error.permanent, offered=error.offered)


def backoff(attempts: int, *, permanent: bool = False) -> timedelta:
    """2, 4, 8 ... 300 seconds, each up to a fifth longer or shorter, so that servers do not fall in step."""
    seconds = BACKOFF_MOST if permanent else min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(attempts - 1, 10))
    return timedelta(seconds=min(BACKOFF_MOST, seconds * random.uniform(0.8, 1.2)))  # noqa: S311 - no secret


@transaction.atomic
def record(claim: Claim, outcome: Outcome) -> Sync | None:
    """Write it down; None if the claim has run out meanwhile and is somebody else's now."""
    now = timezone.now()
    mine = Server.objects.select_for_update().filter(pk=claim.server.pk, lease_until=claim.lease)
    server = mine.first()
    if server is None:
        return None
    _refused_key(server, outcome)
    mine.update(lease_until=None, last_error=outcome.error[:500], **_changes(server, claim, outcome, now))
    sync = claim.sync
    sync.state, sync.finished_at, sync.error = outcome.state, now, outcome.error[:500]
    sync.revision = outcome.revision
    if outcome.answer is not None:
        _count(sync, outcome.answer)
        note_containers(server, outcome.answer.containers)
    sync.save()
    return sync


def _changes(server: Server, claim: Claim, outcome: Outcome, now: datetime) -> dict[str, object]:
    changes: dict[str, object] = {}
    if outcome.answer is not None:
        changes |= {
            "applied_revision": outcome.revision,
            "applied_digest": outcome.digest,
            "attempted_revision": outcome.revision,
            "last_contact": now,
            "offered_host_key": "",
        }
    if outcome.state == Sync.State.SUCCEEDED:
        return changes | {"attempts": 0, "next_attempt": None, "behind_since": None}
    if outcome.offered:
        changes["offered_host_key"] = outcome.offered
    return changes | {
        "next_attempt": now + backoff(claim.attempts, permanent=outcome.permanent),
        "behind_since": server.behind_since or now,
    }


def _refused_key(server: Server, outcome: Outcome) -> None:
    """Said once for each key that was shown, not at each try."""
    if outcome.offered and outcome.offered != server.offered_host_key:
        fresh = Server(host_key=server.host_key, offered_host_key=outcome.offered)
        audit.record(
            actor="worker",
            verb="server.host_key_refused",
            object=server.name,
            detail={"pinned": fresh.fingerprint, "offered": fresh.offered_fingerprint},
        )


def _count(sync: Sync, answer: Answer) -> None:
    sync.results = {name: result.as_json() for name, result in sorted(answer.users.items()) if not result.is_elsewhere}
    sync.written = sum(1 for result in answer.users.values() if "written" in (result.host, result.container))
    sync.unchanged = len(answer.users) - sync.written - sum(1 for result in answer.users.values() if result.failed)


def note_containers(server: Server, facts: Mapping[str, ContainerFact]) -> None:
    """Make the rows of this server equal to what it told; people unknown to the portal are left out."""
    now = timezone.now()
    rows = {row.user.username: row for row in Container.objects.filter(server=server).select_related("user")}
    for user in User.objects.filter(username__in=facts.keys() - rows.keys()):
        fact = facts[user.username]
        Container.objects.create(server=server, user=user, state=fact.state, address=fact.address, last_seen=now)
    for name, row in rows.items():
        if name not in facts:
            row.delete()
        elif (row.state, row.address) != (facts[name].state, facts[name].address):
            Container.objects.filter(pk=row.pk).update(state=facts[name].state, address=facts[name].address)
    Container.objects.filter(server=server).update(last_seen=now)


def prune(server: Server) -> None:
    """Forget old pushes beyond the last KEPT_SYNCS."""
    kept = Sync.objects.filter(server=server).values_list("pk", flat=True)[:KEPT_SYNCS]
    oldest = min(kept, default=None)
    if oldest is not None and len(kept) == KEPT_SYNCS:
        Sync.objects.filter(server=server, pk__lt=oldest, finished_at__isnull=False).delete()
