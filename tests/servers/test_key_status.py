"""The state of each key: never live before the host has confirmed it, never removed before it is."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import SSHKey, User
from accounts.services import numbers
from accounts.services.keys import revoke_key
from servers.models import Confirmation, Placement, Server, ServerState, Worker
from servers.protocol import UserResult
from servers.services.push import results
from servers.services.status import key_status, placements
from tests.servers.conftest import PINNED, give_key
from tests.servers.key_states import on, places
from tests.servers.pushes import BAD, GOOD, NOWHERE, REFUSED, answered, claim, fail, push, record

pytestmark = pytest.mark.django_db


def test_a_new_key_is_pending_until_the_server_confirms_it(server: Server, alice: User) -> None:
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
    assert on(key, server).state == "not registered" and on(key, server).since is None


def test_a_push_makes_no_later_key_live(server: Server, alice: User) -> None:
    first = give_key(alice, 1)
    begun = claim(server)
    outcome = answered(begun, {"alice": GOOD})
    late = give_key(alice, 2)
    assert on(first, server).state == on(late, server).state == "pending"
    assert on(first, server).reason == "a push is running"
    record(begun, outcome)
    assert on(first, server).state == "live" and on(late, server).state == "pending"


def test_an_answer_after_the_lease_expired_makes_nothing_live(server: Server, alice: User) -> None:
    key = give_key(alice)
    begun = claim(server)
    ServerState.objects.update(lease_until=timezone.now() + timedelta(minutes=5))  # the lease of another worker
    assert record(begun, answered(begun, {"alice": GOOD})) is None
    assert on(key, server).state == "pending" and not Confirmation.objects.exists()


def test_y1_a_server_that_is_down_shows_why_since_when_and_the_next_retry(
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


def test_y8_a_file_that_was_not_written_is_failed_only_for_its_person(server: Server, alice: User, bob: User) -> None:
    alices, bobs = give_key(alice, 1), give_key(bob, 2)
    push(server, {"alice": GOOD, "bob": BAD})
    assert places(bobs, server) == {"host account": "failed", "container": "live", "register": "live"}
    assert on(bobs, server).reason == "the home directory is missing" and on(bobs, server).state == "failed"
    assert on(alices, server).state == "live"
    push(server, {"alice": GOOD, "bob": GOOD})
    since = Placement.objects.get(user=bob).host_since
    assert on(bobs, server).state == "live" and on(bobs, server).since == since, "not since the failed push"


def test_y8_a_refused_entry_is_live_nowhere(server: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": REFUSED})
    assert set(places(key, server).values()) == {"failed"}


def test_a_register_file_that_was_not_written_is_not_live(server: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": GOOD}, register="failed")
    assert places(key, server) == {"host account": "live", "container": "live", "register": "failed"}
    push(server, {"alice": GOOD}, register="written")
    assert places(key, server)["register"] == "live"


def test_an_answer_about_some_people_changes_only_them(server: Server, alice: User, bob: User) -> None:
    alices, bobs = give_key(alice, 1), give_key(bob, 2)
    push(server, {"alice": GOOD, "bob": BAD})
    more = give_key(alice, 3)
    assert on(more, server).state == "pending"
    push(server, {"alice": GOOD}, whole=False)
    assert on(more, server).state == on(alices, server).state == "live"
    assert on(bobs, server).state == "failed", "the answer does not cover bob"
    assert Placement.objects.count() == 2


def test_a_removed_account_is_not_registered(server: Server, alice: User, bob: User) -> None:
    key, bobs = give_key(alice, 1), give_key(bob, 2)
    push(server, {"alice": GOOD, "bob": GOOD})
    push(server, {"alice": NOWHERE}, whole=False)
    assert places(key, server)["host account"] == "not registered" and places(bobs, server)["host account"] == "live"
    push(server, {})
    assert places(bobs, server)["host account"] == "not registered"


def test_a_key_of_an_account_without_a_port_shows_that_it_is_sent_nowhere(server: Server, staff: User) -> None:
    key = give_key(staff)
    push(server)
    assert on(key, server).state == "pending" and "no port" in on(key, server).reason


def test_a_key_that_waited_for_a_port_is_live_only_with_it(server: Server, staff: User) -> None:
    key = give_key(staff)
    push(server)
    numbers.assign(staff)
    assert on(key, server).state == "pending", "the server still has the revision without it"
    push(server, {staff.username: GOOD})
    assert on(key, server).state == "live"


def test_a_server_that_has_lost_its_keys_has_no_live_keys(server: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": GOOD})
    status = results.Answer(ok=True, revision=0, digest="")
    results.record_status(server, status)
    server.refresh_from_db()
    assert on(key, server).state == "pending" and server.state.next_attempt and not Confirmation.objects.exists()


def test_without_a_heartbeat_the_worker_is_the_reason(server: Server, alice: User) -> None:
    key = give_key(alice)
    Worker.objects.create(seen_at=timezone.now() - timedelta(hours=1))
    assert on(key, server).reason == "the portal's worker does not respond"


def test_the_number_of_queries_is_the_same_for_many_keys_and_servers(
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


def test_a_run_without_changes_writes_no_placement(server: Server, alice: User) -> None:
    give_key(alice)
    push(server, {"alice": GOOD})
    before = list(Placement.objects.values())
    push(server, {"alice": UserResult("unchanged", "unchanged")})
    assert list(Placement.objects.values()) == before and Confirmation.objects.count() == 1


def test_deleting_old_confirmations_changes_no_state(
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
