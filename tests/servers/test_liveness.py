"""The state of each key: never live before the host has confirmed it, never removed before it is."""

import random
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from accounts.models import SSHKey, User
from accounts.services import keys, numbers, people
from accounts.services.keys import add_keys, revoke_key
from servers.models import Confirmation, Placement, Server, ServerState, Worker
from servers.protocol import Message, UserResult
from servers.services.push import results
from servers.services.status import key_status, overview, placements
from servers.services.status.key_status import KeyOnServer
from tests.accounts.keys import line
from tests.servers.conftest import PINNED
from tests.servers.pushes import GOOD, NOWHERE, answered, claim, fail, push, record

pytestmark = pytest.mark.django_db
BAD = UserResult("failed", "unchanged", Message("home_missing"))
REFUSED = UserResult("failed", "failed", Message("key_shared"))


def give_key(user: User, number: int = 0) -> SSHKey:
    return add_keys(actor=user.username, user=user, pasted=line(number)).added[0]


def on(key: SSHKey, server: Server) -> KeyOnServer:
    key = SSHKey.objects.select_related("user").get(pk=key.pk)
    (status,) = key_status.status_of([key])
    return next(one for one in status.servers if one.server.pk == server.pk)


def places(key: SSHKey, server: Server) -> dict[str, str]:
    return {place.name: str(place.state) for place in on(key, server).places}


def pending() -> dict[str, int]:
    return dict(Server.objects.annotate(count=overview.keys_pending()).values_list("name", "count"))


@pytest.fixture
def gpu18(db: None) -> Server:
    return Server.objects.create(name="gpu18", address="172.16.2.18", host_key=PINNED)


def test_a_new_key_waits_until_the_server_has_confirmed_it(server: Server, alice: User) -> None:
    key = give_key(alice)
    assert places(key, server) == {
        "host account": "not registered",
        "container": "not registered",
        "register": "pending",
    }
    push(server, {"alice": GOOD})
    assert places(key, server) == {"host account": "live", "container": "live", "register": "live"}
    assert on(key, server).since == Confirmation.objects.get().confirmed_at


def test_a_person_without_an_account_can_register_with_the_key(server: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": NOWHERE})
    assert places(key, server) == {"host account": "not registered", "container": "not registered", "register": "live"}
    assert on(key, server).state == "not registered" and on(key, server).since is not None


def test_a_push_in_flight_makes_nothing_live_that_came_after_it(server: Server, alice: User) -> None:
    first = give_key(alice, 1)
    begun = claim(server)
    outcome = answered(begun, {"alice": GOOD})
    late = give_key(alice, 2)
    assert on(first, server).state == on(late, server).state == "pending"
    assert on(first, server).reason == "a push is running"
    record(begun, outcome)
    assert on(first, server).state == "live" and on(late, server).state == "pending"


def test_an_answer_that_comes_after_the_claim_ran_out_makes_nothing_live(server: Server, alice: User) -> None:
    key = give_key(alice)
    begun = claim(server)
    ServerState.objects.update(lease_until=timezone.now() + timedelta(minutes=5))  # somebody else's now
    assert record(begun, answered(begun, {"alice": GOOD})) is None
    assert on(key, server).state == "pending" and not Confirmation.objects.exists()


def test_y1_a_server_that_is_down_says_why_since_when_and_until_when(
    server: Server, gpu18: Server, alice: User
) -> None:
    push(gpu18)
    push(server)
    key = give_key(alice)
    push(gpu18, {"alice": GOOD})
    fail(server)
    one = on(key, server)
    reason = "the server cannot be reached (no route to host)"
    assert (one.state, one.reason, one.since) == ("pending", reason, server.state.behind_since)
    assert one.next_retry == server.state.next_attempt
    assert one.summary.startswith(f"gpu17: {reason}, since ") and ", next retry " in one.summary
    assert on(key, gpu18).state == "live"
    (status,) = key_status.status_of([SSHKey.objects.select_related("user").get()])
    assert status.summary == "live on 1 of 2 servers"
    push(server, {"alice": GOOD})
    (status,) = key_status.status_of([SSHKey.objects.select_related("user").get()])
    assert status.summary == "live on 2 of 2 servers" and not status.unfinished


def test_y8_a_file_that_was_not_written_is_failed_for_its_person_only(server: Server, alice: User, bob: User) -> None:
    alices, bobs = give_key(alice, 1), give_key(bob, 2)
    push(server, {"alice": GOOD, "bob": BAD})
    assert places(bobs, server) == {"host account": "failed", "container": "live", "register": "live"}
    assert on(bobs, server).reason == "the home directory is missing" and on(bobs, server).state == "failed"
    assert on(alices, server).state == "live"
    push(server, {"alice": GOOD, "bob": GOOD})
    since = Placement.objects.get(user=bob).host_since
    assert on(bobs, server).state == "live" and on(bobs, server).since == since, "not since the failed push"


def test_y8_an_entry_that_was_refused_is_live_nowhere(server: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": REFUSED})
    assert set(places(key, server).values()) == {"failed"}


def test_the_file_of_register_that_was_not_written_is_not_live(server: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": GOOD}, register="failed")
    assert places(key, server) == {"host account": "live", "container": "live", "register": "failed"}
    push(server, {"alice": GOOD}, register="written")
    assert places(key, server)["register"] == "live"


def test_an_answer_about_some_people_changes_only_these(server: Server, alice: User, bob: User) -> None:
    alices, bobs = give_key(alice, 1), give_key(bob, 2)
    push(server, {"alice": GOOD, "bob": BAD})
    more = give_key(alice, 3)
    assert on(more, server).state == "pending"
    push(server, {"alice": GOOD}, whole=False)
    assert on(more, server).state == on(alices, server).state == "live"
    assert on(bobs, server).state == "failed", "the answer does not cover bob"
    assert Placement.objects.count() == 2


def test_an_account_that_was_removed_is_not_registered(server: Server, alice: User, bob: User) -> None:
    key, bobs = give_key(alice, 1), give_key(bob, 2)
    push(server, {"alice": GOOD, "bob": GOOD})
    push(server, {"alice": NOWHERE}, whole=False)
    assert places(key, server)["host account"] == "not registered" and places(bobs, server)["host account"] == "live"
    push(server, {})
    assert places(bobs, server)["host account"] == "not registered"


def test_a_removed_key_is_live_where_its_removal_is_not_confirmed(server: Server, gpu18: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": GOOD})
    push(gpu18, {"alice": GOOD})
    revoke_key(actor="alice", key=key)
    fail(gpu18)
    push(server, {"alice": GOOD})
    assert on(key, server).state == "removed" and on(key, gpu18).state == "removing"
    reason = "still accepted there: the server cannot be reached (no route to host)"
    assert on(key, gpu18).summary.startswith(f"gpu18: {reason}, since ")
    (status,) = overview.statuses_of(alice)
    assert status.summary == "removed, but still accepted on gpu18"
    push(gpu18, {"alice": GOOD})
    assert on(key, gpu18).state == "removed" and overview.statuses_of(alice) == []


def test_a_removed_key_stays_where_the_file_cannot_be_written(server: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": GOOD})
    revoke_key(actor="alice", key=key)
    push(server, {"alice": BAD})
    assert places(key, server) == {"host account": "removing", "container": "removed", "register": "removed"}
    assert on(key, server).state == "removing"
    push(server, {"alice": GOOD})
    assert on(key, server).state == "removed"


def test_a_removed_key_may_be_where_a_push_of_it_went_unanswered(server: Server, alice: User) -> None:
    push(server)
    key = give_key(alice)
    fail(server, "it did not finish in time")
    revoke_key(actor="alice", key=key)
    assert on(key, server).state == "removing", "nobody knows what arrived"


def test_a_removed_key_was_never_where_none_was_sent(server: Server, gpu18: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": GOOD})
    revoke_key(actor="alice", key=key)
    assert on(key, gpu18).state == "removed" and on(key, server).state == "removing"


def test_a_removed_key_is_still_on_a_server_that_is_out_of_service(server: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": GOOD})
    Server.objects.update(enabled=False)
    revoke_key(actor="alice", key=key)
    assert on(key, server).summary == "gpu17: still accepted there: it is out of service"


def test_o1_the_keys_of_a_locked_out_person_leave_and_come_back_only_when_confirmed(
    server: Server, alice: User
) -> None:
    key = give_key(alice)
    push(server, {"alice": GOOD})
    people.set_active(actor="warden", user=alice, active=False)
    assert on(key, server).state == "removing"
    push(server, {"alice": GOOD})
    assert on(key, server).state == "removed"
    people.set_active(actor="warden", user=alice, active=True)
    assert on(key, server).state == "pending", "the server still holds the revision of the lock-out"
    push(server, {"alice": GOOD})
    assert on(key, server).state == "live"


def test_o1_until_the_keys_of_a_locked_out_person_have_left_every_page_says_so(
    server: Server, gpu18: Server, alice: User, bob: User
) -> None:
    add_keys(actor="bob", user=bob, pasted=line(2))
    key = give_key(alice)
    for one in (server, gpu18):
        push(one, {"alice": GOOD, "bob": GOOD})
    people.set_active(actor="warden", user=alice, active=False)
    fail(gpu18)
    push(server, {"bob": GOOD})
    assert pending() == {"gpu17": 0, "gpu18": 1}
    assert [(row, one.state) for row, one in key_status.pending_on(gpu18, 10)] == [(key, "removing")]
    assert key_status.pending_on(server, 10) == []
    assert [status.summary for status in key_status.all_statuses()] == [
        "removed, but still accepted on gpu18",
        "live on 2 of 2 servers",
    ]
    Server.objects.filter(name="gpu18").update(enabled=False)
    assert pending() == {"gpu17": 0, "gpu18": 1}, "out of service, it still accepts the key"
    Server.objects.update(enabled=True)
    people.set_active(actor="warden", user=alice, active=True)
    assert pending() == {"gpu17": 1, "gpu18": 1} and on(key, gpu18).state == "pending"
    push(gpu18, {"alice": GOOD, "bob": GOOD})
    assert pending() == {"gpu17": 1, "gpu18": 0}


def test_a_key_that_came_and_went_unsent_is_pending_and_removing_nowhere(server: Server, alice: User) -> None:
    push(server)
    revoke_key(actor="alice", key=give_key(alice))
    assert pending() == {"gpu17": 0} and key_status.pending_on(server, 10) == []
    lost = give_key(alice, 1)
    fail(server, is_sent=True)
    revoke_key(actor="alice", key=lost)
    assert pending() == {"gpu17": 1}
    assert [(row, one.state) for row, one in key_status.pending_on(server, 10)] == [(lost, "removing")]


def test_a_key_that_was_never_sent_is_not_removing(server: Server, alice: User) -> None:
    push(server, {"alice": GOOD})
    key = give_key(alice)
    fail(server, is_sent=False)
    assert on(key, server).state == "pending"
    revoke_key(actor="alice", key=key)
    fail(server, is_sent=False)
    one = on(key, server)
    assert (one.state, one.reason) == ("removed", "it was never there") and overview.statuses_of(alice) == []


def test_a_key_that_was_removed_before_the_first_push_was_never_there(server: Server, alice: User) -> None:
    key = give_key(alice)
    revoke_key(actor="alice", key=key)
    give_key(alice, 1)
    fail(server)
    assert on(key, server).state == "removed", "only what came later was sent"


def test_a_key_of_an_account_without_a_port_is_sent_nowhere_and_says_so(server: Server, staff: User) -> None:
    key = give_key(staff)
    push(server)
    assert on(key, server).state == "pending" and "no port" in on(key, server).reason


def test_a_key_that_waited_for_a_port_is_live_only_with_it(server: Server, staff: User) -> None:
    key = give_key(staff)
    push(server)
    numbers.assign(staff)
    assert on(key, server).state == "pending", "the server still holds the revision without it"
    push(server, {staff.username: GOOD})
    assert on(key, server).state == "live"


def test_a_server_that_has_lost_its_keys_is_no_longer_believed(server: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": GOOD})
    status = results.Answer(ok=True, revision=0, digest="")
    results.record_status(server, status)
    server.refresh_from_db()
    assert on(key, server).state == "pending" and server.state.next_attempt and not Confirmation.objects.exists()


def test_a_silent_worker_is_the_reason(server: Server, alice: User) -> None:
    key = give_key(alice)
    Worker.objects.create(seen_at=timezone.now() - timedelta(hours=1))
    assert on(key, server).reason == "the portal's worker does not respond"


def test_it_costs_the_same_for_many_keys_and_servers(
    server: Server, alice: User, bob: User, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        push(Server.objects.create(name=f"many{number}", address=f"172.16.3.{number}", host_key=PINNED))
    for number in range(6):
        give_key(alice if number % 2 else bob, number)
    rows = list(SSHKey.objects.select_related("user"))
    with django_assert_max_num_queries(9):
        found = key_status.status_of(rows)
    assert len(found) == 6 and all(status.total == 21 for status in found)


def test_a_pass_without_change_writes_no_placement(server: Server, alice: User) -> None:
    give_key(alice)
    push(server, {"alice": GOOD})
    before = list(Placement.objects.values())
    push(server, {"alice": UserResult("unchanged", "unchanged")})
    assert list(Placement.objects.values()) == before and Confirmation.objects.count() == 1


def test_old_confirmations_go_and_no_answer_changes(
    server: Server, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placements, "MAX_CONFIRMATIONS", 3)
    old = give_key(alice, 1)
    push(server, {"alice": GOOD})
    for number in (2, 3, 4):
        revoke_key(actor="bob", key=give_key(bob, number))
        push(server, {"alice": GOOD})
    new = give_key(alice, 5)
    push(server, {"alice": GOOD})
    before = (on(old, server), on(new, server))
    assert Confirmation.objects.count() == 5 and placements.prune() == 3
    assert Confirmation.objects.count() == 2 and (on(old, server), on(new, server)) == before


class Host:
    """What a host does with pushes: the model that the portal's states are compared with."""

    def __init__(self) -> None:
        self.holds: set[int] = set()
        self.is_broken = False


STEPS = ["add", "revoke", "lock", "let in", "break", "mend", "lose"] + ["begin", "arrive", "record"] * 3


@pytest.mark.parametrize("seed", range(2))
def test_y4_whatever_happens_no_key_is_shown_as_live_that_is_not_there(seed: int, server: Server, alice: User) -> None:
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
            assert status.key.pk in host.holds, "shown as live, and is not there"
        if place.state in ("removed", "not registered") and not status.is_wanted and Placement.objects.exists():
            assert status.key.pk not in host.holds, "said to be gone, and is there"
