from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import SSHKey, User
from accounts.services import people
from accounts.services.keys import add_keys, revoke_keys
from servers.models import Server
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
    SSHKey.objects.update(created_at=ago(days=9))
    push(server, {"alice": GOOD})
    return server


def test_nothing_is_missing(gpu17: Server) -> None:
    assert backlog.measure() == Backlog(0, None)


def test_the_age_of_the_first_change_that_is_missing(gpu17: Server, alice: User) -> None:
    for number, minutes in ((2, 10), (3, 5)):
        (key,) = add_keys(actor="alice", user=alice, pasted=line(number)).added
        SSHKey.objects.filter(pk=key.pk).update(created_at=ago(minutes=minutes))
    assert backlog.measure() == Backlog(1, 600)


def test_removals_and_locks_are_changes_too(gpu17: Server, alice: User) -> None:
    revoke_keys(actor="alice", keys=alice.ssh_keys.all())
    SSHKey.objects.update(revoked_at=ago(minutes=2))
    assert backlog.measure().seconds == 120
    push(gpu17, {"alice": GOOD})
    people.set_active(actor="warden", user=alice, active=False)
    assert backlog.measure().seconds == 0


def test_the_server_that_lags_most_decides_and_those_out_of_service_do_not(gpu17: Server, alice: User) -> None:
    other = Server.objects.create(name="gpu18", address="172.16.2.18", host_key=PINNED)
    fail(other)
    Server.objects.filter(pk=other.pk).update(behind_since=ago(hours=1))
    assert backlog.measure() == Backlog(1, 3600), "not nine days: it never had any"
    Server.objects.filter(pk=other.pk).update(enabled=False)
    assert backlog.measure() == Backlog(0, None)


def test_y8_a_person_who_is_not_served_is_something_undelivered(gpu17: Server, alice: User) -> None:
    push(gpu17, {"alice": UserResult("failed", "absent", Message("home_missing"))})
    Server.objects.update(behind_since=ago(minutes=1))
    assert backlog.measure() == Backlog(1, 60)
