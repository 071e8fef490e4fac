"""Jobs that register and remove, over the real connection; their steps on the host are tested in tests/e2e."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import AuditEvent, User
from servers.models import Container, ContainerJob, Server
from servers.protocol import Message
from servers.services.containers import jobs
from servers.services.containers.jobs import JobRefused
from tests.servers.conftest import make_server
from tests.servers.farm import ADDRESSES, Farm

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def gpu17(farm: Farm, transactional_db: None) -> Server:
    (farm.folder / ADDRESSES[0] / "may_register").touch()
    return make_server(farm)


def test_the_container_is_created_and_the_job_has_its_progress(farm: Farm, gpu17: Server, alice: User) -> None:
    job = jobs.request_registration(actor="warden", server=gpu17, user=alice)
    shown: list[str] = []
    assert jobs.run_waiting(report=shown.append) == 1
    job.refresh_from_db()
    assert (job.state, job.error, job.attempts, job.requested_by) == ("succeeded", None, 1, "warden")
    assert job.log == "[1/3] fetch?[31m\n[2/3] account?[31m\n[3/3] clone?[31m\n"
    assert shown == job.log.splitlines()
    assert farm.commands() == ["register", "status"]
    container = Container.objects.get()
    assert (container.server, container.user, container.address) == (gpu17, alice, "10.0.3.160")
    verbs = AuditEvent.objects.filter(object="alice", verb__startswith="container").order_by("pk")
    assert list(verbs.values_list("verb", "actor")) == [
        ("container.registration_requested", "warden"),
        ("container.registered", "warden"),
    ]


def test_r7_a_refusal_of_the_server_is_the_error_of_the_job(farm: Farm, gpu17: Server, alice: User) -> None:
    (farm.folder / ADDRESSES[0] / "may_register").unlink()
    job = jobs.request_registration(actor="warden", server=gpu17, user=alice)
    jobs.run_waiting()
    job.refresh_from_db()
    assert (job.state, job.error) == ("failed", Message("template_missing"))
    assert job.finished_at and Container.objects.count() == 0
    assert jobs.run_waiting() == 0, "an expected failure is not repeated by itself"


def test_r6_requesting_twice_gives_one_job(farm: Farm, gpu17: Server, alice: User) -> None:
    first = jobs.request_registration(actor="warden", server=gpu17, user=alice)
    assert jobs.request_registration(actor="boss", server=gpu17, user=alice) == first
    jobs.run_waiting()
    assert jobs.request_registration(actor="boss", server=gpu17, user=alice) != first


def test_y1_a_dead_server_fails_its_own_jobs_only(farm: Farm, gpu17: Server, alice: User) -> None:
    dead = make_server(farm, 1, address="127.0.0.99")
    jobs.request_registration(actor="warden", server=dead, user=alice)
    jobs.request_registration(actor="warden", server=gpu17, user=alice)
    assert jobs.run_waiting() == 2
    states = dict(ContainerJob.objects.values_list("server__name", "state"))
    assert states == {"gpu17": "succeeded", dead.name: "failed"}


def test_a_job_whose_worker_died_is_run_again(farm: Farm, gpu17: Server, alice: User) -> None:
    job = jobs.request_registration(actor="warden", server=gpu17, user=alice)
    assert jobs._claim(None) is not None
    assert jobs.run_waiting() == 0 and jobs.recover_interrupted() == 0, "it may still run"
    ContainerJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert jobs.recover_interrupted() == 1
    jobs.run_waiting()
    job.refresh_from_db()
    assert (job.state, job.attempts) == ("succeeded", 2)


def test_a_job_that_kills_its_worker_three_times_is_given_up(farm: Farm, gpu17: Server, alice: User) -> None:
    job = jobs.request_registration(actor="warden", server=gpu17, user=alice)
    for _ in range(3):
        assert jobs._claim(None) is not None
        ContainerJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        jobs.recover_interrupted()
    job.refresh_from_db()
    assert (job.state, job.error) == ("failed", Message("job_interrupted", {"attempts": 3}))
    assert jobs.run_waiting() == 0 and farm.commands() == []


def test_a_person_without_a_port_or_locked_out_is_refused(gpu17: Server, alice: User, staff: User) -> None:
    with pytest.raises(JobRefused, match="first sign-in"):
        jobs.request_registration(actor="warden", server=gpu17, user=staff)
    alice.is_active = False
    with pytest.raises(JobRefused, match="locked out"):
        jobs.request_registration(actor="warden", server=gpu17, user=alice)


def test_a_server_out_of_service_accepts_no_registration(gpu17: Server, alice: User) -> None:
    gpu17.enabled = False
    with pytest.raises(JobRefused, match="out of service"):
        jobs.request_registration(actor="warden", server=gpu17, user=alice)
    assert ContainerJob.objects.count() == 0


@pytest.fixture
def registered(gpu17: Server, alice: User) -> Server:
    """Alice has a container there."""
    jobs.request_registration(actor="warden", server=gpu17, user=alice)
    jobs.run_waiting()
    assert Container.objects.count() == 1
    return gpu17


def test_the_container_is_removed_and_the_job_has_its_progress(farm: Farm, registered: Server, alice: User) -> None:
    job = jobs.request_removal(actor="warden", server=registered, user=alice)
    assert jobs.run_waiting() == 1
    job.refresh_from_db()
    assert (job.kind, job.state, job.error, job.log) == ("remove", "succeeded", None, "[1/1] putting aside\n")
    assert farm.commands() == ["register", "status", "remove", "status"]
    assert Container.objects.count() == 0
    verbs = AuditEvent.objects.filter(object="alice", verb__contains="remov").order_by("pk")
    assert list(verbs.values_list("verb", "actor")) == [
        ("container.removal_requested", "warden"),
        ("container.removed", "warden"),
    ]


def test_purge_is_passed_to_the_server(registered: Server, alice: User) -> None:
    job = jobs.request_removal(actor="warden", server=registered, user=alice, purge=True)
    jobs.run_waiting()
    job.refresh_from_db()
    assert job.log == "[1/1] deleting\n"


def test_a_locked_out_person_can_be_removed(registered: Server, alice: User) -> None:
    alice.is_active = False
    alice.save()
    job = jobs.request_removal(actor="warden", server=registered, user=alice)
    jobs.run_waiting()
    job.refresh_from_db()
    assert job.state == "succeeded"


def test_removing_an_unknown_person_succeeds(registered: Server, bob: User) -> None:
    """The answer to an earlier attempt was lost; the job succeeds all the same."""
    job = jobs.request_removal(actor="warden", server=registered, user=bob)
    jobs.run_waiting()
    job.refresh_from_db()
    assert (job.state, job.error) == ("succeeded", None)


def test_the_reason_of_the_server_is_the_error_of_the_job(farm: Farm, registered: Server, alice: User) -> None:
    (farm.folder / ADDRESSES[0] / "may_not_remove").touch()
    job = jobs.request_removal(actor="warden", server=registered, user=alice)
    jobs.run_waiting()
    job.refresh_from_db()
    assert (job.state, job.error) == ("failed", Message("disk_full"))
    assert Container.objects.count() == 1


def test_o1_a_removal_is_retried_until_the_server_answers(farm: Farm, registered: Server, alice: User) -> None:
    there = registered.address
    Server.objects.update(address="127.0.0.99")
    job = jobs.request_removal(actor="warden", server=registered, user=alice)
    for _ in range(5):  # more often than a registration would be tried
        assert jobs.run_waiting() == 1
        job.refresh_from_db()
        assert job.state == "queued" and job.error and job.next_attempt and job.next_attempt > timezone.now()
        assert jobs.run_waiting() == 0 and jobs.recover_interrupted() == 0, "it is not due"
        ContainerJob.objects.update(next_attempt=timezone.now() - timedelta(seconds=1))
    Server.objects.update(address=there)
    assert jobs.recover_interrupted() == 1 and jobs.run_waiting() == 1
    job.refresh_from_db()
    assert (job.state, job.error) == ("succeeded", None)


def test_a_person_has_one_open_job_per_server(registered: Server, alice: User) -> None:
    first = jobs.request_removal(actor="warden", server=registered, user=alice)
    assert jobs.request_removal(actor="boss", server=registered, user=alice) == first
    with pytest.raises(JobRefused, match="open"):
        jobs.request_removal(actor="boss", server=registered, user=alice, purge=True)
    with pytest.raises(JobRefused, match="open"):
        jobs.request_registration(actor="boss", server=registered, user=alice)


def test_a_server_out_of_service_accepts_no_removal(registered: Server, alice: User) -> None:
    registered.enabled = False
    with pytest.raises(JobRefused, match="out of service"):
        jobs.request_removal(actor="warden", server=registered, user=alice)
