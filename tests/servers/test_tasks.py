from datetime import timedelta
from unittest.mock import patch

import pytest
from django.test import TestCase
from django.utils import timezone
from django_q.models import OrmQ, Schedule

from accounts import directory
from accounts.models import User
from accounts.services import people
from accounts.services.keys import add_keys
from servers import apps, tasks
from servers.models import ContainerJob, Push, Server, ServerState, Worker
from servers.processes import lease_holder
from servers.services.push import runner
from servers.services.worker import full_names, queue
from tests.accounts.keys import line


def waiting() -> list[str]:
    """The functions queued in the broker."""
    return [row.func() for row in OrmQ.objects.order_by("pk")]


@pytest.mark.django_db
def test_a_change_of_keys_wakes_the_worker_after_its_commit(alice: User) -> None:
    with TestCase.captureOnCommitCallbacks(execute=True):
        add_keys(actor="alice", user=alice, pasted=line())
        assert waiting() == []
    assert waiting() == [queue.PUSH]


@pytest.mark.django_db
def test_o1_locking_out_wakes_the_worker(alice: User) -> None:
    with TestCase.captureOnCommitCallbacks(execute=True):
        people.set_active(actor="warden", user=alice, active=False)
    assert waiting() == [queue.PUSH]


@pytest.mark.django_db
def test_a_broker_that_is_down_does_not_undo_the_change(alice: User) -> None:
    with (
        patch("servers.services.worker.queue.async_task", side_effect=OSError("no broker")),
        TestCase.captureOnCommitCallbacks(execute=True),
    ):
        add_keys(actor="alice", user=alice, pasted=line())
    assert alice.ssh_keys.count() == 1


@pytest.mark.django_db
def test_reconcile_queues_lost_tasks_again(server: Server, alice: User) -> None:
    add_keys(actor="alice", user=alice, pasted=line())
    ContainerJob.objects.create(server=server, user=alice, requested_by="warden")
    with TestCase.captureOnCommitCallbacks(execute=True):
        tasks.reconcile()
    assert sorted(waiting()) == [queue.PUSH, queue.CONTAINER_JOBS]
    assert Worker.objects.get().seen_at


@pytest.mark.django_db
def test_reconcile_without_work_queues_nothing(server: Server) -> None:
    with TestCase.captureOnCommitCallbacks(execute=True):
        tasks.reconcile()
    assert waiting() == []


@pytest.mark.django_db
def test_y3_reconcile_recovers_what_a_dead_worker_held(server: Server, alice: User) -> None:
    past = timezone.now() - timedelta(minutes=5)
    ServerState.objects.update(lease_until=past, next_attempt=past, attempts=1)
    push = Push.objects.create(server=server, state="running", started_at=past)
    job = ContainerJob.objects.create(server=server, user=alice, state="running", attempts=1, lease_until=past)
    with TestCase.captureOnCommitCallbacks(execute=True):
        tasks.reconcile()
    push.refresh_from_db()
    job.refresh_from_db()
    assert (push.state, job.state) == ("failed", "queued")
    assert sorted(waiting()) == [queue.PUSH, queue.CONTAINER_JOBS]


@pytest.mark.django_db
def test_y3_leases_of_a_dead_process_are_released_early(server: Server, alice: User) -> None:
    later, dead = timezone.now() + timedelta(minutes=2), f"{lease_holder.current()}1"
    ServerState.objects.update(lease_until=later, lease_holder=dead, next_attempt=later, attempts=1)
    push = Push.objects.create(server=server, state="running", started_at=timezone.now())
    job = ContainerJob.objects.create(
        server=server, user=alice, state="running", attempts=1, lease_until=later, lease_holder=dead
    )
    with TestCase.captureOnCommitCallbacks(execute=True):
        tasks.send_heartbeat()
    for row in (server, push, job):
        row.refresh_from_db()
    assert (push.state, job.state, server.state.lease_until) == ("failed", "queued", None)
    assert server.state.next_attempt and server.state.next_attempt < timezone.now() + timedelta(seconds=3), "soon"
    assert waiting() == [queue.CONTAINER_JOBS]


@pytest.mark.django_db
def test_y3_leases_of_a_running_process_stay(server: Server) -> None:
    later = timezone.now() + timedelta(minutes=2)
    ServerState.objects.update(lease_until=later, lease_holder=lease_holder.current(), attempts=1)
    push = Push.objects.create(server=server, state="running", started_at=timezone.now())
    tasks.send_heartbeat()
    push.refresh_from_db()
    assert push.state == "running" and Server.objects.get().state.lease_until == later


@pytest.mark.django_db
def test_the_schedule_is_created_once() -> None:
    apps._plan_reconcile()
    apps._plan_reconcile()
    row = Schedule.objects.get(name="lab-iam reconcile")
    assert (row.func, row.schedule_type, row.minutes, row.repeats) == ("servers.tasks.reconcile", "I", 1, -1)


@pytest.mark.django_db
@pytest.mark.parametrize("name", [queue.PUSH, queue.CONTAINER_JOBS, queue.HEARTBEAT, "servers.tasks.reconcile"])
def test_the_names_of_tasks_name_functions(name: str) -> None:
    assert callable(getattr(tasks, name.rpartition(".")[2]))


@pytest.mark.django_db
def test_y9_tasks_whose_work_is_already_done_cost_nothing(server: Server, alice: User) -> None:
    add_keys(actor="alice", user=alice, pasted=line())
    ServerState.objects.update(next_attempt=None, attempted_revision=1)  # served
    with patch.object(people, "sync_names", return_value=people.SyncNames()):
        full_names.refresh(actor="worker")
    with patch.object(runner, "push_due") as served, patch.object(full_names, "start_refresh") as read:
        tasks.push_keys()
        assert [served.call_count, read.call_count] == [0, 0]
        add_keys(actor="alice", user=alice, pasted=line(1))
        tasks.push_keys()
        assert [served.call_count, read.call_count] == [1, 1]


@pytest.mark.django_db
def test_y9_a_push_requested_during_the_pause_between_two_pushes_is_waited_for(server: Server, alice: User) -> None:
    ServerState.objects.update(next_attempt=None, attempted_revision=0, attempted_at=timezone.now())
    add_keys(actor="alice", user=alice, pasted=line())
    assert not runner.is_pending(timedelta(0)) and runner.is_pending()


@pytest.mark.django_db
def test_full_names_are_read_once_per_revision(alice: User) -> None:
    add_keys(actor="alice", user=alice, pasted=line())
    with patch.object(people, "sync_names", return_value=people.SyncNames()) as asked:
        assert full_names.refresh(actor="worker") is True
        assert full_names.refresh(actor="worker") is False
        add_keys(actor="alice", user=alice, pasted=line(1))
        assert full_names.refresh(actor="worker") is True
    assert asked.call_count == 2


@pytest.mark.django_db
def test_y7_a_directory_that_is_down_is_logged_once(alice: User, caplog: pytest.LogCaptureFixture) -> None:
    add_keys(actor="alice", user=alice, pasted=line())
    with patch.object(people, "sync_names", side_effect=directory.DirectoryUnavailable("down")):
        assert full_names.refresh(actor="worker") is False
    assert [record.levelname for record in caplog.records] == ["WARNING"]
