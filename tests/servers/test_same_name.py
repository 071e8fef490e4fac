"""O3: a name belongs to a new person while a server that was not in the portal still has the previous person's account."""

import json

import pytest
from django.utils import timezone

from accounts.models import User
from accounts.services import numbers, people
from servers.models import ServerState
from servers.services.fleet import servers
from servers.services.status import key_status
from tests.servers.conftest import give_key, key_body, make_server, push_due
from tests.servers.farm import ADDRESSES, Farm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


@pytest.fixture
def newcomer(farm: Farm, transactional_db: None, alice: User) -> User:
    """Another alice with new numbers; gpu17 was removed from the portal with the first one's account on it."""
    server = make_server(farm)
    give_key(alice)
    push_due()
    register(farm, alice)
    servers.remove(actor="warden", server=server)
    people.set_active(actor="warden", user=alice, active=False)
    people.delete(actor="warden", user=alice)
    somebody = User.objects.create_user("alice", directory_id="id-of-another")
    numbers.assign(somebody)
    return somebody


def register(farm: Farm, user: User) -> None:
    """The state of the host after a registration."""
    folder = farm.folder / ADDRESSES[0] / "state/users"
    folder.mkdir(exist_ok=True)
    numbers_ = {"port": user.port.number, "subuid": user.subuids.start}
    value = {"name": user.username, "account": "created", "uid": 12345, "registered": True, **numbers_}
    (folder / f"{user.username}.json").write_text(json.dumps(value))


def test_o3_a_server_that_was_added_again_refuses_a_new_persons_keys_until_the_old_account_is_removed(
    farm: Farm, newcomer: User
) -> None:
    key = give_key(newcomer, 1)
    server = make_server(farm)
    (push,) = push_due()
    assert push.state == "partial" and push.results["alice"]["host"] == push.results["alice"]["container"] == "failed"
    assert push.results["alice"]["error"]["reason"] == "other_person"
    (status,) = key_status.status_of([key])
    assert status.summary == "live on 0 of 1 server" and "somebody else" in status.unfinished[0].reason
    register(farm, newcomer)  # the previous one is removed, and the new person has a container
    ServerState.objects.filter(pk=server.pk).update(next_attempt=timezone.now())
    assert push_due()[0].state == "succeeded" and key_body(1) in farm.register_file()


def test_o3_also_when_the_new_person_adds_a_first_key_later(farm: Farm, newcomer: User, bob: User) -> None:
    for number in range(2, 8):
        give_key(bob, number)
    make_server(farm)
    assert push_due()[0].state == "succeeded"
    give_key(newcomer, 1)
    (push,) = push_due()
    assert push.state == "partial" and push.results["alice"]["error"]["reason"] == "other_person"
