"""A removed key, or the key of a locked-out person, is *removing* until each server confirms."""

import pytest

from accounts.models import User
from accounts.services import people
from accounts.services.keys import add_keys, revoke_key
from servers.models import Server
from servers.services.status import key_status, overview
from tests.accounts.keys import line
from tests.servers.conftest import give_key
from tests.servers.key_states import on, pending, places
from tests.servers.pushes import BAD, GOOD, fail, push

pytestmark = pytest.mark.django_db


def test_a_removed_key_is_removing_until_it_is_confirmed(server: Server, gpu18: Server, alice: User) -> None:
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


def test_a_removed_key_is_removing_while_the_file_cannot_be_written(server: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": GOOD})
    revoke_key(actor="alice", key=key)
    push(server, {"alice": BAD})
    assert places(key, server) == {"host account": "removing", "container": "removed", "register": "removed"}
    assert on(key, server).state == "removing"
    push(server, {"alice": GOOD})
    assert on(key, server).state == "removed"


def test_a_removed_key_is_removing_after_an_unanswered_push_of_it(server: Server, alice: User) -> None:
    push(server)
    key = give_key(alice)
    fail(server, "it did not finish in time")
    revoke_key(actor="alice", key=key)
    assert on(key, server).state == "removing", "it is unknown what arrived"


def test_a_removed_key_that_was_never_sent_is_on_no_server(server: Server, gpu18: Server, alice: User) -> None:
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


def test_o1_the_keys_of_a_locked_out_person_change_state_only_when_confirmed(server: Server, alice: User) -> None:
    key = give_key(alice)
    push(server, {"alice": GOOD})
    people.set_active(actor="warden", user=alice, active=False)
    assert on(key, server).state == "removing"
    push(server, {"alice": GOOD})
    assert on(key, server).state == "removed"
    people.set_active(actor="warden", user=alice, active=True)
    assert on(key, server).state == "pending", "the server still has the revision of the lock-out"
    push(server, {"alice": GOOD})
    assert on(key, server).state == "live"


def test_o1_every_page_shows_that_a_locked_out_person_still_has_keys_on_servers(
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


def test_a_key_added_and_removed_before_a_push_is_removing_nowhere(server: Server, alice: User) -> None:
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


def test_a_key_removed_before_the_first_push_is_on_no_server(server: Server, alice: User) -> None:
    key = give_key(alice)
    revoke_key(actor="alice", key=key)
    give_key(alice, 1)
    fail(server)
    assert on(key, server).state == "removed", "only the later key was sent"
