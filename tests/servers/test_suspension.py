"""Case O1: who is locked out is suspended on every server; the real steps run in tests/e2e."""

import pytest

from accounts.models import AuditEvent, User
from accounts.services import people
from servers import tasks
from servers.models import Container, ContainerJob, Server
from servers.services.containers import jobs
from tests.servers.conftest import make_server
from tests.servers.farm import ADDRESSES, Farm

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def gpu17(farm: Farm, transactional_db: None, alice: User) -> Server:
    """Alice has a container there."""
    (farm.folder / ADDRESSES[0] / "may_register").touch()
    server = make_server(farm)
    jobs.request(actor="warden", server=server, user=alice)
    jobs.run_waiting()
    return server


def test_o1_locking_out_suspends_on_each_server(farm: Farm, gpu17: Server, alice: User) -> None:
    people.set_active(actor="warden", user=alice, active=False)
    order = ContainerJob.objects.get(kind="suspend")
    assert (order.server, order.requested_by, order.state) == (gpu17, "warden", "queued")
    jobs.run_waiting()
    order.refresh_from_db()
    assert (order.state, order.log) == ("succeeded", "ending open sessions\n")
    assert farm.commands()[-2:] == ["suspend", "status"]
    assert AuditEvent.objects.filter(verb="container.suspended", object="alice").exists()


def test_o1_while_the_keys_are_live_there_it_is_tried_again(farm: Farm, gpu17: Server, alice: User) -> None:
    (farm.folder / ADDRESSES[0] / "keys_are_live").touch()
    people.set_active(actor="warden", user=alice, active=False)
    jobs.run_waiting()
    order = ContainerJob.objects.get(kind="suspend")
    assert order.state == "queued" and "still live" in order.error


def test_o1_who_has_no_container_needs_no_order(gpu17: Server, bob: User) -> None:
    people.set_active(actor="warden", user=bob, active=False)
    assert not ContainerJob.objects.filter(kind="suspend").exists()


def test_o1_a_registration_that_waits_is_called_off(gpu17: Server, bob: User) -> None:
    order = jobs.request(actor="warden", server=gpu17, user=bob)
    people.set_active(actor="warden", user=bob, active=False)
    order.refresh_from_db()
    assert (order.state, order.error) == ("failed", "The person was locked out.")
    assert jobs.run_waiting() == 0


def test_o1_an_order_that_was_lost_is_found_by_the_reconciler_once(gpu17: Server, alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_active=False)  # the process died right after the commit
    Container.objects.update(state="running")
    tasks.reconcile()
    assert ContainerJob.objects.filter(kind="suspend").count() == 1
    ContainerJob.objects.filter(kind="suspend").update(state="failed")
    tasks.reconcile()
    assert ContainerJob.objects.filter(kind="suspend").count() == 1


def test_letting_in_orders_nothing(gpu17: Server, alice: User) -> None:
    people.set_active(actor="warden", user=alice, active=False)
    people.set_active(actor="warden", user=alice, active=True)
    assert ContainerJob.objects.filter(kind="suspend").count() == 1
