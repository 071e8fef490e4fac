from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import KeyRange, User
from accounts.services import people
from accounts.services.keys import add_keys, revoke_keys
from servers.models import Server, ServerState
from servers.protocol import Message, UserResult
from servers.services.status import backlog
from servers.services.status.backlog import Backlog
from tests.accounts.keys import line
from tests.servers.conftest import PINNED
from tests.servers.pushes import GOOD, fail, push

pytestmark = pytest.mark.django_db


def ago(**words: int) -> object:
    return timezone.now() - timedelta(**words)


@pytest.fixture
def gpu17(server: Server, alice: User) -> Server:
    add_keys(actor="alice", user=alice, pasted=line(1))
    KeyRange.objects.update(started_at=ago(days=9))
    push(server, {"alice": GOOD})
    return server


def test_a_server_that_is_up_to_date_has_no_backlog(gpu17: Server) -> None:
    assert backlog.measure() == Backlog(0, None)


def test_the_backlog_is_as_old_as_its_first_change(gpu17: Server, alice: User) -> None:
    for number, minutes in ((2, 10), (3, 5)):
        (key,) = add_keys(actor="alice", user=alice, pasted=line(number)).added
        key.ranges.update(started_at=ago(minutes=minutes))
    assert backlog.measure() == Backlog(1, 600)


def test_removed_keys_and_locked_out_people_count_as_changes(gpu17: Server, alice: User) -> None:
    revoke_keys(actor="alice", keys=alice.ssh_keys.all())
    KeyRange.objects.update(ended_at=ago(minutes=2))
    assert backlog.measure().seconds == 120
    add_keys(actor="alice", user=alice, pasted=line(2))
    push(gpu17, {"alice": GOOD})
    people.set_active(actor="warden", user=alice, active=False)
    assert backlog.measure().seconds == 0


def test_the_oldest_backlog_of_servers_in_service_counts(gpu17: Server, alice: User) -> None:
    other = Server.objects.create(name="gpu18", address="172.16.2.18", host_key=PINNED)
    fail(other)
    ServerState.objects.filter(pk=other.pk).update(behind_since=ago(hours=1))
    assert backlog.measure() == Backlog(1, 3600), "not nine days: it never had any"
    Server.objects.filter(pk=other.pk).update(enabled=False)
    assert backlog.measure() == Backlog(0, None)


def test_y8_a_person_who_failed_counts_as_a_backlog(gpu17: Server, alice: User) -> None:
    push(gpu17, {"alice": UserResult("failed", "absent", Message("home_missing"))})
    ServerState.objects.update(behind_since=ago(minutes=1))
    assert backlog.measure() == Backlog(1, 60)
