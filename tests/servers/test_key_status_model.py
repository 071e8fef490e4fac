"""Random events: the portal never shows a key as live that the host does not have."""

import random

import pytest
from django.db import transaction

from accounts.models import SSHKey, User
from accounts.services import keys, people
from accounts.services.keys import revoke_key
from servers.models import Placement, Server
from servers.protocol import Message
from servers.services.push import results
from servers.services.status import key_status
from tests.servers.conftest import give_key
from tests.servers.pushes import BAD, GOOD, answered, claim, record

pytestmark = pytest.mark.django_db


class Host:
    """How a host handles pushes: the model with which the portal's states are compared."""

    def __init__(self) -> None:
        self.holds: set[int] = set()
        self.is_broken = False


STEPS = ["add", "revoke", "lock", "let in", "break", "mend", "lose"] + ["begin", "arrive", "record"] * 3


@pytest.mark.parametrize("seed", range(2))
def test_y4_after_any_events_no_missing_key_is_shown_as_live(seed: int, server: Server, alice: User) -> None:
    chance = random.Random(seed)
    for _ in range(4):
        with transaction.atomic():
            _walk(chance.choices(STEPS, k=40), server, alice)
            transaction.set_rollback(True)
        server.refresh_from_db()
        alice.refresh_from_db()


def _walk(steps: list[str], server: Server, alice: User) -> None:
    host, begun, answer, number = Host(), None, None, 0
    for step in steps:
        mine = list(SSHKey.objects.active().filter(user=alice))
        if step == "add" and number < 8 and User.objects.get(pk=alice.pk).is_active:
            give_key(alice, number)
            number += 1
        elif step == "revoke" and mine:
            revoke_key(actor="alice", key=mine[0])
        elif step in ("lock", "let in"):
            people.set_active(actor="warden", user=alice, active=step == "let in")
        elif step == "begin" and begun is None:
            begun, answer = claim(server), None
            wanted = {key.blob for key in keys.current_state().users.get("alice", [])}
        elif step == "arrive" and begun is not None and answer is None:
            answer = answered(begun, {"alice": BAD if host.is_broken else GOOD})
            if not host.is_broken:
                host.holds = set(SSHKey.objects.filter(user=alice, blob__in=wanted).values_list("pk", flat=True))
        elif step == "record" and begun is not None and answer is not None:
            record(begun, answer)
            begun = answer = None
        elif step == "lose" and begun is not None:
            record(begun, results.Outcome(results.Push.State.FAILED, begun.push.revision, error=Message("timeout")))
            begun = answer = None
        elif step in ("break", "mend"):
            host.is_broken = step == "break"
        _check(host, server, alice)


def _check(host: Host, server: Server, alice: User) -> None:
    rows = list(SSHKey.objects.filter(user=alice).select_related("user"))
    for status in key_status.status_of(rows):
        (one,) = status.servers
        place = one.places[0]
        if place.state == "live":
            assert status.key.pk in host.holds, "shown as live, but is not there"
        if place.state in ("removed", "not registered") and not status.is_wanted and Placement.objects.exists():
            assert status.key.pk not in host.holds, "shown as removed, but is there"
