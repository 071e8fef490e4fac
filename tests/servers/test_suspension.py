"""Case O1: a locked-out person is suspended on every server; the real steps are tested in tests/e2e."""

import json
from typing import Any

import pytest

from accounts.models import AuditEvent, User
from accounts.services import keys, people
from servers import tasks
from servers.models import Container, ContainerJob, Server
from servers.protocol import Message
from servers.services.containers import jobs
from tests.servers.conftest import make_server
from tests.servers.farm import ADDRESSES, Farm

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def gpu17(farm: Farm, transactional_db: None, alice: User) -> Server:
    """Alice has a container there."""
    (farm.folder / ADDRESSES[0] / "may_register").touch()
    server = make_server(farm)
    jobs.request_registration(actor="warden", server=server, user=alice)
    jobs.run_waiting()
    return server


def test_o1_locking_out_suspends_on_each_server(farm: Farm, gpu17: Server, alice: User) -> None:
    people.set_active(actor="warden", user=alice, active=False)
    job = ContainerJob.objects.get(kind="suspend")
    assert (job.server, job.requested_by, job.state) == (gpu17, "warden", "queued")
    jobs.run_waiting()
    job.refresh_from_db()
    assert (job.state, job.log) == ("succeeded", "ending open sessions\n")
    assert farm.commands()[-2:] == ["suspend", "status"]
    assert AuditEvent.objects.filter(verb="container.suspended", object="alice").exists()


def test_o1_a_suspension_is_retried_while_keys_are_live(farm: Farm, gpu17: Server, alice: User) -> None:
    (farm.folder / ADDRESSES[0] / "keys_are_live").touch()
    people.set_active(actor="warden", user=alice, active=False)
    jobs.run_waiting()
    job = ContainerJob.objects.get(kind="suspend")
    assert (job.state, job.error) == ("queued", Message("keys_still_live", {"name": "alice"}))


def test_o1_a_person_without_a_container_needs_no_suspension(gpu17: Server, bob: User) -> None:
    people.set_active(actor="warden", user=bob, active=False)
    assert not ContainerJob.objects.filter(kind="suspend").exists()


def test_o1_a_queued_registration_is_cancelled(gpu17: Server, bob: User) -> None:
    job = jobs.request_registration(actor="warden", server=gpu17, user=bob)
    people.set_active(actor="warden", user=bob, active=False)
    job.refresh_from_db()
    assert (job.state, job.error) == ("failed", Message("locked_out"))
    assert jobs.run_waiting() == 0


def test_o1_a_lost_suspension_is_queued_again_once(gpu17: Server, alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_active=False)  # the process died right after the commit
    Container.objects.update(state="running")
    tasks.reconcile()
    assert ContainerJob.objects.filter(kind="suspend").count() == 1
    ContainerJob.objects.filter(kind="suspend").update(state="failed")
    tasks.reconcile()
    assert ContainerJob.objects.filter(kind="suspend").count() == 1


def test_z3_an_unlock_overtakes_a_suspension(farm: Farm, gpu17: Server, alice: User) -> None:
    people.set_active(actor="warden", user=alice, active=False)
    people.set_active(actor="warden", user=alice, active=True)
    before, number = farm.commands(), keys.current_revision()
    jobs.run_waiting()
    job = ContainerJob.objects.get(kind="suspend")
    assert (job.state, job.error) == ("failed", Message("unlocked_meanwhile", {"name": "alice"}))
    assert farm.commands() == before, "the server was not asked"
    assert keys.current_revision() == number + 1, "an earlier attempt may have suspended them"


def test_z3_an_unlock_during_a_suspension_leads_to_a_later_revision(
    farm: Farm, gpu17: Server, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    people.set_active(actor="warden", user=alice, active=False)
    ask = jobs.ask

    def overtaken(*arguments: Any, **fields: Any) -> Any:
        people.set_active(actor="warden", user=alice, active=True)
        return ask(*arguments, **fields)

    monkeypatch.setattr(jobs, "ask", overtaken)
    jobs.run_waiting()
    sent = json.loads((farm.folder / ADDRESSES[0] / "suspended").read_text())["revision"]
    assert keys.current_revision() == sent + 2, "the unlock, and one more"


def test_z3_a_suspension_names_the_revision_that_took_the_keys_away(farm: Farm, gpu17: Server, alice: User) -> None:
    people.set_active(actor="warden", user=alice, active=False)
    jobs.run_waiting()
    request = json.loads((farm.folder / ADDRESSES[0] / "suspended").read_text())
    assert request == {"version": 1, "user": "alice", "revision": keys.current_revision()}


def test_unlocking_queues_nothing(gpu17: Server, alice: User) -> None:
    people.set_active(actor="warden", user=alice, active=False)
    people.set_active(actor="warden", user=alice, active=True)
    assert ContainerJob.objects.filter(kind="suspend").count() == 1
