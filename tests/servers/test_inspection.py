from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import OrmQ

from accounts.models import User
from accounts.services.keys import add_keys
from servers import disks, tasks
from servers.models import Container, Push, Server, ServerState
from servers.services.fleet import inspection
from servers.services.push import runner
from tests.accounts.keys import line
from tests.servers.conftest import OTHER, make_server
from tests.servers.farm import ADDRESSES, Farm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


@pytest.fixture
def quiet(farm: Farm, alice: User) -> Server:
    """A server that has the keys, and that was last reached two hours ago."""
    server = make_server(farm)
    add_keys(actor="alice", user=alice, pasted=line())
    runner.push_due(actor="test")
    assert not inspection.is_due(), "a push reports the same"
    ServerState.objects.update(inspected_at=timezone.now() - timedelta(hours=2))
    return server


def test_a_server_without_pushes_is_inspected_once_an_hour(farm: Farm, quiet: Server) -> None:
    tasks.inspect()
    tasks.inspect()
    assert farm.commands() == ["set-keys", "status"] and not inspection.is_due()


def test_z1_the_free_space_of_a_server_is_known(farm: Farm, quiet: Server) -> None:
    tasks.inspect()
    quiet.state.refresh_from_db()
    assert list(quiet.state.disks) == ["homes", "state"]
    assert "people's files: " in disks.summary(quiet.state.disks) and " GB" in disks.summary(quiet.state.disks)


def test_reconcile_queues_an_inspection(quiet: Server) -> None:
    OrmQ.objects.all().delete()
    tasks.reconcile()
    assert [order.func() for order in OrmQ.objects.all()] == ["servers.tasks.inspect"]


def test_a_container_registered_on_the_host_is_found(farm: Farm, quiet: Server, alice: User) -> None:
    users = farm.folder / ADDRESSES[0] / "state/users"
    users.mkdir()
    (users / "alice.json").write_text('{"name": "alice", "address": "10.0.3.160", "port": 22000}')
    tasks.inspect()
    assert Container.objects.get().user == alice
    assert Push.objects.get(state="queued").trigger == "new container", "a push reports where the keys are"
    tasks.inspect()
    assert Push.objects.filter(state="queued").count() == 1


def test_y5_a_changed_host_key_is_noticed_without_a_push(farm: Farm, quiet: Server) -> None:
    Server.objects.update(host_key=OTHER)
    tasks.inspect()
    quiet.refresh_from_db()
    assert quiet.offered_host_key == farm.host_key and quiet.host_key == OTHER
    assert farm.commands() == ["set-keys"], "nothing was sent"


def test_a_server_that_is_down_is_not_inspected_for_an_hour(farm: Farm, quiet: Server) -> None:
    Server.objects.update(address="127.0.0.99")
    tasks.inspect()
    assert not inspection.is_due()
