"""Servers ahead of the database: their revision is not in it, as after restoring a backup. Staff decide about them."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from accounts.models import KeyRange
from accounts.services import audit, revision
from servers.models import Server, ServerState
from servers.protocol import Answer
from servers.services import remote
from servers.services.push import guard, results
from servers.ssh.dial import RemoteError

THREADS = 10
Fingerprints = Mapping[str, Sequence[str]]  # by name


@dataclass(frozen=True)
class Report:
    """A server's answer; None if it did not answer, and `fault` says why."""

    server: Server
    answer: Answer | None
    fault: RemoteError | None = None


@dataclass(frozen=True)
class Differences:
    """Between the keys on a server, which has the revision with this id, and those in the database."""

    server: Server
    revision: int
    id: str
    surplus: Fingerprints  # only on the server
    lacking: Fingerprints  # only in the database

    @property
    def is_known(self) -> bool:
        return revision.knows(self.revision, self.id)

    @property
    def mark(self) -> str:
        """Identifies what staff have seen, so that a decision covers nothing else."""
        text = json.dumps([self.id, self.surplus, self.lacking], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def counts(self) -> tuple[int, int]:
        """How many keys would be removed, and added."""
        surplus, lacking = (sum(map(len, own.values())) for own in (self.surplus, self.lacking))
        return surplus, lacking


def ask(servers: Collection[Server]) -> list[Report]:
    """Ask these servers for their status, at most THREADS at once, and store the answers."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="ask") as threads:
        reports = list(threads.map(_ask, servers))
    for one in reports:
        if one.answer is not None:
            results.record_status(one.server, one.answer)
    return reports


def _ask(server: Server) -> Report:
    try:
        return Report(server, remote.status(server))
    except RemoteError as error:
        return Report(server, None, error)


def compare(server: Server) -> Differences:
    """Ask the server what it holds. Raises RemoteError."""
    answer = remote.status(server, keys=True)
    results.record_status(server, answer)
    ours, theirs = wanted(revision.current()), answer.keys
    return Differences(server, answer.revision, answer.id, guard.missing(theirs, ours), guard.missing(ours, theirs))


def adopt(*, actor: str, server: Server, mark: str) -> bool:
    """Let this database's keys replace those on the server; False if it is not ahead, or shows other differences now.

    Under a new revision: its id was never on any server, so that nothing that is late can follow it. RemoteError.
    """
    found = compare(server)
    if found.mark != mark or found.is_known:
        return False
    with transaction.atomic():
        number = revision.increment([])
        ServerState.objects.filter(pk=server.pk).update(adopted_id=found.id, next_attempt=timezone.now(), attempts=0)
        removed, added = found.counts()
        detail = {"revision": number, "there": found.revision, "id": found.id, "removed": removed, "added": added}
        audit.record(actor=actor, verb="server.adopted", object=server.name, detail=detail)
    return True


def wanted(number: int) -> dict[str, list[str]]:
    """Fingerprints of the keys that servers should hold at this revision, by name."""
    found: dict[str, list[str]] = {}
    for name, one in KeyRange.objects.wanted_at(number).values_list("key__user__username", "key__fingerprint"):
        found.setdefault(name, []).append(one)
    return found
