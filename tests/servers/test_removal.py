"""Orders to remove a container, through the real connection; the steps themselves run in tests/e2e."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import AuditEvent, User
from servers.models import Container, ContainerJob, Server
from servers.services.containers import jobs, suspension
from servers.services.containers.jobs import JobRefused
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
    assert Container.objects.count() == 1
    return server


def test_the_container_is_gone_and_what_was_done_is_on_the_row(farm: Farm, gpu17: Server, alice: User) -> None:
    order = suspension.request(actor="warden", server=gpu17, user=alice)
    assert jobs.run_waiting() == 1
    order.refresh_from_db()
    assert (order.kind, order.state, order.error, order.log) == ("remove", "succeeded", "", "[1/1] putting aside\n")
    assert farm.commands() == ["register", "status", "remove", "status"]
    assert Container.objects.count() == 0
    verbs = AuditEvent.objects.filter(object="alice", verb__contains="remov").order_by("pk")
    assert list(verbs.values_list("verb", "actor")) == [
        ("container.removal_requested", "warden"),
        ("container.removed", "warden"),
    ]


def test_purging_is_told_to_the_server(gpu17: Server, alice: User) -> None:
    order = suspension.request(actor="warden", server=gpu17, user=alice, purge=True)
    jobs.run_waiting()
    order.refresh_from_db()
    assert order.log == "[1/1] deleting\n"


def test_somebody_who_is_locked_out_can_be_removed(gpu17: Server, alice: User) -> None:
    alice.is_active = False
    alice.save()
    order = suspension.request(actor="warden", server=gpu17, user=alice)
    jobs.run_waiting()
    order.refresh_from_db()
    assert order.state == "succeeded"


def test_who_is_gone_already_is_removed(gpu17: Server, bob: User) -> None:
    """The answer to an earlier try was lost: the order is carried out all the same."""
    order = suspension.request(actor="warden", server=gpu17, user=bob)
    jobs.run_waiting()
    order.refresh_from_db()
    assert (order.state, order.error) == ("succeeded", "")


def test_what_the_server_could_not_do_is_the_error(farm: Farm, gpu17: Server, alice: User) -> None:
    (farm.folder / ADDRESSES[0] / "may_not_remove").touch()
    order = suspension.request(actor="warden", server=gpu17, user=alice)
    jobs.run_waiting()
    order.refresh_from_db()
    assert order.state == "failed" and "not done yet: removing the account" in order.error
    assert Container.objects.count() == 1


def test_o1_a_server_that_is_away_is_tried_again_until_it_answers(farm: Farm, gpu17: Server, alice: User) -> None:
    there = gpu17.address
    Server.objects.update(address="127.0.0.99")
    order = suspension.request(actor="warden", server=gpu17, user=alice)
    for _ in range(5):  # more often than a registration would be tried
        assert jobs.run_waiting() == 1
        order.refresh_from_db()
        assert order.state == "queued" and order.error and order.next_attempt and order.next_attempt > timezone.now()
        assert jobs.run_waiting() == 0 and jobs.recover_interrupted() == 0, "it is not due"
        ContainerJob.objects.update(next_attempt=timezone.now() - timedelta(seconds=1))
    Server.objects.update(address=there)
    assert jobs.recover_interrupted() == 1 and jobs.run_waiting() == 1
    order.refresh_from_db()
    assert (order.state, order.error) == ("succeeded", "")


def test_one_open_order_for_a_person_on_a_server(gpu17: Server, alice: User) -> None:
    first = suspension.request(actor="warden", server=gpu17, user=alice)
    assert suspension.request(actor="boss", server=gpu17, user=alice) == first
    with pytest.raises(JobRefused, match="open"):
        suspension.request(actor="boss", server=gpu17, user=alice, purge=True)
    with pytest.raises(JobRefused, match="open"):
        jobs.request(actor="boss", server=gpu17, user=alice)


def test_a_disabled_server_is_refused(gpu17: Server, alice: User) -> None:
    gpu17.enabled = False
    with pytest.raises(JobRefused, match="disabled"):
        suspension.request(actor="warden", server=gpu17, user=alice)
