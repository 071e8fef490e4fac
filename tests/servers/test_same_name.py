"""O3: a name came to somebody new while a server that the portal had forgotten still has the former person's account."""

import json

import pytest
from django.utils import timezone

from accounts.models import User
from accounts.services import numbers, people
from servers.models import Server
from servers.services.fleet import servers
from servers.services.status import key_status
from tests.servers.conftest import give_key, make_server
from tests.servers.farm import ADDRESSES, Farm
from tests.servers.test_delivery import converge, key_body

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


@pytest.fixture
def newcomer(farm: Farm, transactional_db: None, alice: User) -> User:
    """Another alice, with numbers of her own; gpu17 was taken out of the portal with the first one's account on it."""
    server = make_server(farm)
    give_key(alice)
    converge()
    register(farm, alice)
    servers.remove(actor="warden", server=server)
    people.set_active(actor="warden", user=alice, active=False)
    people.delete(actor="warden", user=alice)
    somebody = User.objects.create_user("alice", directory_id="id-of-another")
    numbers.assign(somebody)
    return somebody


def register(farm: Farm, user: User) -> None:
    """The journal of the host as a registration leaves it."""
    folder = farm.folder / ADDRESSES[0] / "state/users"
    folder.mkdir(exist_ok=True)
    numbers_ = {"port": user.port.number, "subuid": user.subuids.start}
    value = {"name": user.username, "account": "made", "uid": 12345, "registered": True, **numbers_}
    (folder / f"{user.username}.json").write_text(json.dumps(value))


def test_o3_a_server_that_was_added_again_refuses_her_keys_until_the_former_is_removed(
    farm: Farm, newcomer: User
) -> None:
    key = give_key(newcomer, 1)
    server = make_server(farm)
    (push,) = converge()
    assert push.state == "partial" and push.results["alice"]["host"] == push.results["alice"]["container"] == "failed"
    assert push.results["alice"]["error"]["reason"] == "other_person"
    (status,) = key_status.status_of([key])
    assert status.words == "live on 0 of 1 server" and status.open[0].reason == "other_person"
    register(farm, newcomer)  # the former one is removed, and she has a container of her own
    Server.objects.filter(pk=server.pk).update(next_attempt=timezone.now())
    assert converge()[0].state == "succeeded" and key_body(1) in farm.register_file()


def test_o3_also_when_she_gets_her_first_key_afterwards(farm: Farm, newcomer: User, bob: User) -> None:
    for number in range(2, 8):
        give_key(bob, number)
    make_server(farm)
    assert converge()[0].state == "succeeded"
    give_key(newcomer, 1)
    (push,) = converge()
    assert push.state == "partial" and push.results["alice"]["error"]["reason"] == "other_person"
