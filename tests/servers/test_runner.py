"""When the runner pushes, and what it records; over real SSH to the real labhost."""

import time
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts import directory
from accounts.models import AuditEvent, User
from accounts.services import keys
from accounts.services.keys import add_keys, current_revision, revoke_key
from servers import tasks
from servers.models import Container, Push, Server, ServerState
from servers.processes import lease_holder
from servers.protocol import Message
from servers.services import remote
from servers.services.push import results, runner
from tests.accounts.keys import line
from tests.servers.conftest import give_key, key_body, make_server, push_due, started
from tests.servers.farm import ADDRESSES, Farm
from tests.servers.pushes import record

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick", "no_thread_left")]


@pytest.fixture
def gpu17(farm: Farm, transactional_db: None) -> Server:
    return make_server(farm)


def test_a_key_reaches_the_server_and_the_push_is_recorded(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    (push,) = push_due()
    assert key_body() in farm.register_file()
    gpu17.refresh_from_db()
    assert (push.state, push.revision, push.trigger, push.error) == ("succeeded", 1, "test", None)
    assert push.started_at and push.finished_at and push.finished_at >= push.started_at
    assert gpu17.state.applied_revision == current_revision() == 1
    assert len(gpu17.state.applied_digest) == 64 and gpu17.state.last_contact
    assert (gpu17.state.attempts, gpu17.state.next_attempt, gpu17.state.behind_since, gpu17.state.lease_until) == (
        0,
        None,
        None,
        None,
    )


def test_contract_the_digest_is_the_one_that_labhost_reports(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    push_due()
    gpu17.refresh_from_db()
    status = remote.status(gpu17)
    assert (status.revision, status.digest) == (gpu17.state.applied_revision, gpu17.state.applied_digest)


def test_contract_a_key_belongs_to_its_person(farm: Farm, gpu17: Server, alice: User, bob: User) -> None:
    give_key(alice, 1)
    give_key(bob, 2)
    push_due()
    forced = 'restrict,command="/home/register/register.bash {}" {}\n'
    assert farm.register_file() == forced.format("alice", key_body(1)) + forced.format("bob", key_body(2))


def test_a_removed_key_leaves_the_server(farm: Farm, gpu17: Server, alice: User) -> None:
    key = give_key(alice)
    push_due()
    revoke_key(actor="alice", key=key)
    push_due()
    assert farm.register_file() == ""


def test_a_run_without_changes_opens_no_connection(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    push_due()
    assert push_due() == []
    assert farm.commands() == ["set-keys"] and Push.objects.count() == 1


def test_a_requested_push_runs_although_nothing_changed(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    push_due()
    first = runner.request_push(actor="warden", servers=[gpu17])
    assert runner.request_push(actor="warden", servers=[gpu17]) == first, "one request is enough"
    (push,) = push_due()
    assert (push.pk, push.state, push.trigger) == (first[0].pk, "succeeded", "warden")
    assert AuditEvent.objects.filter(verb="server.push_requested", actor="warden").count() == 1


def test_a_disabled_server_gets_nothing(farm: Farm, gpu17: Server, alice: User) -> None:
    Server.objects.update(enabled=False)
    gpu17.refresh_from_db()
    give_key(alice)
    assert runner.request_push(actor="warden", servers=[gpu17]) == [] and push_due() == []
    assert farm.commands() == []


def test_y7_a_directory_that_is_down_does_not_stop_the_push(
    farm: Farm, gpu17: Server, alice: User, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.LDAP_URL = "ldap://127.0.0.1:9"
    assert directory.configured()
    give_key(alice)
    tasks.push_keys()
    gpu17.refresh_from_db()
    assert gpu17.state.applied_revision == 1 and key_body() in farm.register_file()
    assert "directory unavailable" in caplog.text


def test_y7_a_directory_that_is_slow_does_not_delay_the_push(
    farm: Farm,
    gpu17: Server,
    alice: User,
    settings: Settings,
    black_hole: tuple[str, int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.LDAP_URL = f"ldap://{black_hole[0]}:{black_hole[1]}"
    settings.LDAP_TIMEOUT = 3
    give_key(alice)
    tasks.push_keys()
    push = Push.objects.get()
    gave_up = next(record.created for record in caplog.records if "directory unavailable" in record.getMessage())
    assert push.state == "succeeded" and push.finished_at and push.finished_at.timestamp() < gave_up


def test_y9_a_burst_of_edits_becomes_few_pushes_and_the_last_state_wins(
    farm: Farm, gpu17: Server, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SPACING", timedelta(seconds=1))
    edits = 30

    def push_three_times() -> None:
        for _ in range(3):
            tasks.push_keys()

    began = time.monotonic()
    give_key(alice, 0)
    worker = started(push_three_times)
    for number in range(1, edits):
        give_key(alice, number % 10) if number < 10 else _flip(alice, number)
        time.sleep(0.1)
    worker.join()
    push_due()
    gpu17.refresh_from_db()
    assert gpu17.state.applied_revision == current_revision() >= edits
    assert len(farm.commands()) <= 2 + time.monotonic() - began, "more than one per second"
    expected = {" ".join((key.type, key.blob)) for key in keys.current_state().users["alice"]}
    assert {part.split('" ')[1] for part in farm.register_file().splitlines()} == expected


def _flip(user: User, number: int) -> None:
    key = user.ssh_keys.active().first()
    assert key is not None
    revoke_key(actor="alice", key=key)
    add_keys(actor="alice", user=user, pasted=line(10 + number % 3))


def test_y3_a_push_of_a_dead_worker_is_closed_and_repeated(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    (claim,) = runner._claim("test", None, 10)
    assert claim.attempts == 1
    assert runner._claim("test", None, 10) == [], "two workers at one server"
    assert runner.close_interrupted() == 0, "it may still run"
    ServerState.objects.update(lease_until=timezone.now() - timedelta(seconds=1), next_attempt=timezone.now())
    assert runner.close_interrupted() == 1
    claim.push.refresh_from_db()
    assert claim.push.state == "failed" and claim.push.finished_at
    (push,) = push_due()
    assert push.state == "succeeded" and key_body() in farm.register_file()


def test_y3_many_dead_workers_do_not_make_a_server_wait_for_minutes(gpu17: Server, alice: User) -> None:
    give_key(alice)
    ServerState.objects.update(attempts=20)
    (_,) = runner._claim("test", None, 10)
    an_earlier_process = f"{lease_holder.current()}1"  # with the same process id
    ServerState.objects.update(lease_holder=an_earlier_process)
    assert runner.close_interrupted() == 1
    gpu17.refresh_from_db()
    assert gpu17.state.lease_until is None and gpu17.state.next_attempt is not None
    assert timedelta(seconds=1) < gpu17.state.next_attempt - timezone.now() <= timedelta(seconds=10)


def test_y3_a_worker_that_answers_too_late_records_nothing(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    (late,) = runner._claim("test", None, 10)
    ServerState.objects.update(lease_until=timezone.now() - timedelta(seconds=1), next_attempt=timezone.now())
    push_due()
    assert record(late, results.Outcome(Push.State.FAILED, 1, error=Message("timeout"))) is None
    gpu17.refresh_from_db()
    assert gpu17.state.applied_revision == 1 and gpu17.state.last_error is None


def test_two_runs_at_once_push_once(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    passes = [started(push_due) for _ in range(3)]
    for one in passes:
        one.join()
    assert farm.commands() == ["set-keys"]


def test_containers_are_those_that_the_server_reports(farm: Farm, gpu17: Server, alice: User, bob: User) -> None:
    Container.objects.create(server=gpu17, user=bob, state="running")
    users = farm.folder / ADDRESSES[0] / "state/users"
    users.mkdir()
    for name in ("alice", "stranger"):
        (users / f"{name}.json").write_text(f'{{"name": "{name}", "address": "10.0.3.160", "port": 22000}}')
    runner.request_push(actor="test", servers=[gpu17])
    (push,) = push_due()
    assert push.state == "succeeded"
    (row,) = Container.objects.all()
    assert (row.user, row.address) == (alice, "10.0.3.160")


def test_old_pushes_are_deleted(gpu17: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_PUSHES", 3)
    now = timezone.now()
    rows = [Push.objects.create(server=gpu17, state="succeeded", finished_at=now) for _ in range(5)]
    results.prune(gpu17)
    assert list(Push.objects.order_by("pk")) == rows[2:]
