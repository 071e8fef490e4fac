"""Registration through the real connection; the eleven steps themselves run in tests/e2e."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import AuditEvent, User
from servers.models import Container, ContainerJob, Server
from servers.services.containers import jobs
from servers.services.containers.jobs import JobRefused
from tests.servers.conftest import make_server
from tests.servers.farm import ADDRESSES, Farm

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def gpu17(farm: Farm, transactional_db: None) -> Server:
    (farm.folder / ADDRESSES[0] / "may_register").touch()
    return make_server(farm)


def test_the_container_is_made_and_its_progress_is_on_the_row(farm: Farm, gpu17: Server, alice: User) -> None:
    order = jobs.request(actor="warden", server=gpu17, user=alice)
    told: list[str] = []
    assert jobs.run_waiting(tell=told.append) == 1
    order.refresh_from_db()
    assert (order.state, order.error, order.attempts, order.requested_by) == ("succeeded", "", 1, "warden")
    assert order.log == "[1/3] fetch?[31m\n[2/3] account?[31m\n[3/3] clone?[31m\n"
    assert told == order.log.splitlines()
    assert farm.commands() == ["register", "status"]
    container = Container.objects.get()
    assert (container.server, container.user, container.address) == (gpu17, alice, "10.0.3.160")
    verbs = AuditEvent.objects.filter(object="alice", verb__startswith="container").order_by("pk")
    assert list(verbs.values_list("verb", "actor")) == [
        ("container.requested", "warden"),
        ("container.registered", "warden"),
    ]


def test_r7_a_refusal_of_the_server_is_the_error_of_the_order(farm: Farm, gpu17: Server, alice: User) -> None:
    (farm.folder / ADDRESSES[0] / "may_register").unlink()
    order = jobs.request(actor="warden", server=gpu17, user=alice)
    jobs.run_waiting()
    order.refresh_from_db()
    assert (order.state, order.error) == ("failed", "gpu17: the template is missing")
    assert order.finished_at and Container.objects.count() == 0
    assert jobs.run_waiting() == 0, "an expected failure is not repeated by itself"


def test_r6_ordering_twice_gives_one_order(farm: Farm, gpu17: Server, alice: User) -> None:
    first = jobs.request(actor="warden", server=gpu17, user=alice)
    assert jobs.request(actor="boss", server=gpu17, user=alice) == first
    jobs.run_waiting()
    assert jobs.request(actor="boss", server=gpu17, user=alice) != first


def test_y1_a_dead_server_fails_its_own_orders_only(farm: Farm, gpu17: Server, alice: User) -> None:
    dead = make_server(farm, 1, address="127.0.0.99")
    jobs.request(actor="warden", server=dead, user=alice)
    jobs.request(actor="warden", server=gpu17, user=alice)
    assert jobs.run_waiting() == 2
    states = dict(ContainerJob.objects.values_list("server__name", "state"))
    assert states == {"gpu17": "succeeded", dead.name: "failed"}


def test_an_order_whose_worker_died_is_carried_out_again(farm: Farm, gpu17: Server, alice: User) -> None:
    order = jobs.request(actor="warden", server=gpu17, user=alice)
    assert jobs._claim(None) is not None
    assert jobs.run_waiting() == 0 and jobs.recover_interrupted() == 0, "it may still be alive"
    ContainerJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert jobs.recover_interrupted() == 1
    jobs.run_waiting()
    order.refresh_from_db()
    assert (order.state, order.attempts) == ("succeeded", 2)


def test_an_order_that_kills_its_worker_three_times_is_given_up(farm: Farm, gpu17: Server, alice: User) -> None:
    order = jobs.request(actor="warden", server=gpu17, user=alice)
    for _ in range(3):
        assert jobs._claim(None) is not None
        ContainerJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        jobs.recover_interrupted()
    order.refresh_from_db()
    assert order.state == "failed" and "3 times" in order.error
    assert jobs.run_waiting() == 0 and farm.commands() == []


def test_a_person_without_a_port_or_locked_out_is_refused(gpu17: Server, alice: User, staff: User) -> None:
    with pytest.raises(JobRefused, match="sign in once"):
        jobs.request(actor="warden", server=gpu17, user=staff)
    alice.is_active = False
    with pytest.raises(JobRefused, match="locked out"):
        jobs.request(actor="warden", server=gpu17, user=alice)


def test_a_disabled_server_is_refused(gpu17: Server, alice: User) -> None:
    gpu17.enabled = False
    with pytest.raises(JobRefused, match="disabled"):
        jobs.request(actor="warden", server=gpu17, user=alice)
    assert ContainerJob.objects.count() == 0
