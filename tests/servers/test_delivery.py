"""Pushes over real SSH to the real labhost."""

import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts import directory
from accounts.models import AuditEvent, SSHKey, User
from accounts.services import keys
from accounts.services.keys import add_keys, current_revision, revoke_key
from servers import messages, tasks
from servers.models import Container, Push, Server, ServerState
from servers.processes import lease_holder
from servers.protocol import Message
from servers.services import remote
from servers.services.push import results, runner
from servers.ssh import portal_key
from servers.ssh.dial import RemoteError
from tests.accounts.keys import line
from tests.servers.conftest import OTHER, converge, give_key, key_body, make_server, started
from tests.servers.farm import ADDRESSES, Farm
from tests.servers.pushes import record

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


@pytest.fixture
def gpu17(farm: Farm, transactional_db: None) -> Server:
    return make_server(farm)


def test_a_key_reaches_the_server_and_is_written_down(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    (push,) = converge()
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
    converge()
    gpu17.refresh_from_db()
    status = remote.status(gpu17)
    assert (status.revision, status.digest) == (gpu17.state.applied_revision, gpu17.state.applied_digest)


def test_contract_a_key_is_tied_to_its_person(farm: Farm, gpu17: Server, alice: User, bob: User) -> None:
    give_key(alice, 1)
    give_key(bob, 2)
    converge()
    forced = 'restrict,command="/home/register/register.bash {}" {}\n'
    assert farm.register_file() == forced.format("alice", key_body(1)) + forced.format("bob", key_body(2))


def test_a_removed_key_leaves_the_server(farm: Farm, gpu17: Server, alice: User) -> None:
    key = give_key(alice)
    converge()
    revoke_key(actor="alice", key=key)
    converge()
    assert farm.register_file() == ""


def test_a_pass_without_change_connects_to_nobody(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    converge()
    assert converge() == []
    assert farm.commands() == ["set-keys"] and Push.objects.count() == 1


def test_an_ordered_push_is_made_although_nothing_changed(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    converge()
    first = runner.request_push(actor="warden", servers=[gpu17])
    assert runner.request_push(actor="warden", servers=[gpu17]) == first, "one order is enough"
    (push,) = converge()
    assert (push.pk, push.state, push.trigger) == (first[0].pk, "succeeded", "warden")
    assert AuditEvent.objects.filter(verb="server.push_requested", actor="warden").count() == 1


def test_a_disabled_server_gets_nothing(farm: Farm, gpu17: Server, alice: User) -> None:
    Server.objects.update(enabled=False)
    gpu17.refresh_from_db()
    give_key(alice)
    assert runner.request_push(actor="warden", servers=[gpu17]) == [] and converge() == []
    assert farm.commands() == []


def test_y1_three_dead_of_20_servers_delay_nobody(farm: Farm, alice: User, black_hole: tuple[str, int]) -> None:
    dead = {
        "refuses": make_server(farm, 0, "a-refuses", address="127.0.0.99"),
        "hole": make_server(farm, 0, "a-hole", address=black_hole[0], ssh_port=black_hole[1]),
        "nameless": make_server(farm, 0, "a-nameless", address=f"{'x' * 64}.invalid"),
    }
    good = [make_server(farm, number) for number in range(17)]
    give_key(alice)
    began = timezone.now()
    done = {push.server.name: push for push in converge()}
    assert len(done) == 20
    for server in good:
        push = done[server.name]
        assert push.state == "succeeded" and push.finished_at
        assert (push.finished_at - began).total_seconds() < 10
    for server in dead.values():
        server.refresh_from_db()
        assert done[server.name].state == "failed"
        assert server.state.last_error and "\n" not in messages.render(server.state.last_error)
        assert server.state.behind_since and server.state.behind_since >= began
        assert server.state.next_attempt and server.state.next_attempt > began and server.state.attempts == 1


def test_y1_a_server_that_is_down_is_tried_again_and_served_when_it_returns(
    farm: Farm, gpu17: Server, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "BACKOFF_FIRST", 0.7)
    monkeypatch.setattr(runner, "QUICK_RETRY", timedelta(seconds=2))
    Server.objects.update(address="127.0.0.99")
    give_key(alice)
    failed = converge()
    assert len(failed) >= 2, "a pass makes the quick tries itself"
    gpu17.refresh_from_db()
    since = gpu17.state.behind_since
    assert gpu17.state.attempts == len(failed) and gpu17.state.next_attempt
    assert (gpu17.state.next_attempt - timezone.now()).total_seconds() > 1, "it does not back off"
    Server.objects.update(address=ADDRESSES[0])
    ServerState.objects.update(next_attempt=timezone.now())
    gpu17.refresh_from_db()
    assert gpu17.state.behind_since == since, "stale since the first failure"
    (push,) = converge()
    gpu17.refresh_from_db()
    assert push.state == "succeeded" and gpu17.state.attempts == 0 and gpu17.state.behind_since is None


def test_y2_a_server_that_never_answers_is_given_up_and_the_others_are_served_meanwhile(
    farm: Farm, gpu17: Server, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SERVER_SECONDS", 3.0)
    other = make_server(farm, 1)
    farm.behave(ADDRESSES[0], "mute")
    give_key(alice)
    done = {push.server.name: push for push in converge()}
    assert done["gpu17"].state == "failed" and done["gpu17"].error == Message("timeout")
    good = done[other.name]
    assert good.state == "succeeded" and good.started_at and good.finished_at
    late = done["gpu17"].finished_at
    assert late and good.finished_at < late


def test_y2_a_dozen_servers_that_hang_hold_up_nobody(farm: Farm, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SERVER_SECONDS", 6.0)
    for number in range(12):
        make_server(farm, number, f"a-hangs{number}")
        farm.behave(ADDRESSES[number], "mute")
    good = [make_server(farm, number) for number in range(12, 20)]
    give_key(alice)
    done = {push.server.name: push for push in converge()}
    ends = {name: push.finished_at for name, push in done.items() if push.finished_at}
    assert all(done[server.name].state == "succeeded" for server in good)
    assert max(ends[server.name] for server in good) < min(ends[f"a-hangs{number}"] for number in range(12))


def test_y4_a_host_that_has_a_newer_revision_refuses_and_staff_can_read_why(
    farm: Farm, gpu17: Server, alice: User
) -> None:
    give_key(alice)
    converge()
    farm.change_applied("revision", 9)
    give_key(alice, 1)
    before = farm.register_file()
    push = converge()[0]
    assert push.state == "failed" and push.error == Message("server_ahead")
    assert farm.register_file() == before
    gpu17.refresh_from_db()
    assert gpu17.state.applied_revision == 1 and gpu17.state.next_attempt


def test_y5_nothing_is_sent_to_a_server_with_a_changed_host_key_and_it_is_kept_for_the_staff(
    farm: Farm, gpu17: Server, alice: User
) -> None:
    Server.objects.update(host_key=OTHER)
    give_key(alice)
    (push,) = converge()
    gpu17.refresh_from_db()
    assert push.state == "failed" and farm.commands() == []
    assert gpu17.offered_host_key == farm.host_key and gpu17.host_key == OTHER
    ServerState.objects.update(next_attempt=timezone.now())
    converge()
    assert AuditEvent.objects.filter(verb="server.host_key_refused").count() == 1, "said once, not at each try"


def test_y5_nothing_is_sent_to_a_server_without_a_pinned_host_key(farm: Farm, gpu17: Server, alice: User) -> None:
    Server.objects.update(host_key="")
    give_key(alice)
    (push,) = converge()
    assert push.state == "failed" and push.error == Message("host_key_unknown") and farm.commands() == []


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [("garbage", "not JSON"), ("liar", "another revision"), ("fails-all", "disk is full")],
)
def test_y6_a_host_that_could_not_write_is_not_believed_and_is_tried_again(
    farm: Farm, gpu17: Server, alice: User, behaviour: str, words: str
) -> None:
    farm.behave(ADDRESSES[0], behaviour)
    give_key(alice)
    push = converge()[0]
    gpu17.refresh_from_db()
    assert push.state == "failed" and words in messages.render(push.error)
    assert gpu17.state.applied_revision == 0 and gpu17.state.next_attempt and gpu17.state.behind_since


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


def test_y8_one_bad_entry_is_that_persons_only_and_is_tried_again(
    farm: Farm, gpu17: Server, alice: User, bob: User
) -> None:
    give_key(alice)
    key = give_key(bob, 1)
    SSHKey.objects.filter(pk=key.pk).update(blob="AAAAbroken")
    push = converge()[0]
    gpu17.refresh_from_db()
    assert push.state == "partial" and push.error == Message("people_failed", {"count": 1})
    assert set(push.results) == {"bob"} and push.results["bob"]["host"] == "failed" and push.results["bob"]["error"]
    assert key_body() in farm.register_file()
    assert gpu17.state.applied_revision == 2 and gpu17.state.next_attempt and gpu17.state.behind_since


def test_y9_a_burst_of_edits_is_few_pushes_and_the_last_state_wins(
    farm: Farm, gpu17: Server, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SPACING", timedelta(seconds=1))
    edits = 30

    def converge_three_times() -> None:
        for _ in range(3):
            tasks.push_keys()

    began = time.monotonic()
    give_key(alice, 0)
    worker = started(converge_three_times)
    for number in range(1, edits):
        give_key(alice, number % 10) if number < 10 else _flip(alice, number)
        time.sleep(0.1)
    worker.join()
    converge()
    gpu17.refresh_from_db()
    assert gpu17.state.applied_revision == current_revision() >= edits
    assert len(farm.commands()) <= 2 + time.monotonic() - began, "more than one a second"
    expected = {" ".join((key.type, key.blob)) for key in keys.current_state().users["alice"]}
    assert {part.split('" ')[1] for part in farm.register_file().splitlines()} == expected


def _flip(user: User, number: int) -> None:
    key = user.ssh_keys.active().first()
    assert key is not None
    revoke_key(actor="alice", key=key)
    add_keys(actor="alice", user=user, pasted=line(10 + number % 3))


def test_y3_a_push_whose_worker_died_is_closed_and_made_again(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    (claim,) = runner._claim("test", None, 10)
    assert claim.attempts == 1
    assert runner._claim("test", None, 10) == [], "two workers at one server"
    assert runner.close_interrupted() == 0, "it may still be alive"
    ServerState.objects.update(lease_until=timezone.now() - timedelta(seconds=1), next_attempt=timezone.now())
    assert runner.close_interrupted() == 1
    claim.push.refresh_from_db()
    assert claim.push.state == "failed" and claim.push.finished_at
    (push,) = converge()
    assert push.state == "succeeded" and key_body() in farm.register_file()


def test_y3_many_dead_workers_do_not_make_a_server_wait_for_minutes(gpu17: Server, alice: User) -> None:
    give_key(alice)
    ServerState.objects.update(attempts=20)
    (_,) = runner._claim("test", None, 10)
    ServerState.objects.update(
        lease_holder=f"{lease_holder.current()}1"
    )  # this process's number, of an earlier process
    assert runner.close_interrupted() == 1
    gpu17.refresh_from_db()
    assert gpu17.state.lease_until is None and gpu17.state.next_attempt is not None
    assert timedelta(seconds=1) < gpu17.state.next_attempt - timezone.now() <= timedelta(seconds=10)


def test_y3_a_worker_that_comes_back_too_late_writes_nothing_down(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    (late,) = runner._claim("test", None, 10)
    ServerState.objects.update(lease_until=timezone.now() - timedelta(seconds=1), next_attempt=timezone.now())
    converge()
    assert record(late, results.Outcome(Push.State.FAILED, 1, error=Message("timeout"))) is None
    gpu17.refresh_from_db()
    assert gpu17.state.applied_revision == 1 and gpu17.state.last_error is None


def test_two_passes_at_once_push_once(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    passes = [started(converge) for _ in range(3)]
    for one in passes:
        one.join()
    assert farm.commands() == ["set-keys"]


def test_containers_are_what_the_server_says(farm: Farm, gpu17: Server, alice: User, bob: User) -> None:
    Container.objects.create(server=gpu17, user=bob, state="running")
    users = farm.folder / ADDRESSES[0] / "state/users"
    users.mkdir()
    for name in ("alice", "stranger"):
        (users / f"{name}.json").write_text(f'{{"name": "{name}", "address": "10.0.3.160", "port": 22000}}')
    runner.request_push(actor="test", servers=[gpu17])
    (push,) = converge()
    assert push.state == "succeeded"
    (row,) = Container.objects.all()
    assert (row.user, row.address) == (alice, "10.0.3.160")


def test_the_portal_without_a_key_says_what_to_do(farm: Farm, gpu17: Server, alice: User, settings: Settings) -> None:
    settings.PORTAL_KEY_FILE = farm.folder / "none"
    give_key(alice)
    (push,) = converge()
    assert push.state == "failed" and "create_portal_key" in messages.render(push.error)


def test_old_pushes_are_forgotten(gpu17: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_PUSHES", 3)
    now = timezone.now()
    rows = [Push.objects.create(server=gpu17, state="succeeded", finished_at=now) for _ in range(5)]
    results.prune(gpu17)
    assert list(Push.objects.order_by("pk")) == rows[2:]


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    left = [one.name for one in threading.enumerate() if one.name.startswith("serve")]
    assert left == []


def test_a_server_that_refuses_the_portals_key_says_what_to_do(
    farm: Farm, gpu17: Server, alice: User, settings: Settings
) -> None:
    settings.PORTAL_KEY_FILE = farm.folder / "fresh_key"
    portal_key.create(settings.PORTAL_KEY_FILE)
    give_key(alice)
    (push,) = converge()
    assert push.state == "failed" and "deploy_server gpu17" in messages.render(push.error)


def test_a_key_that_was_no_key_is_one_as_soon_as_it_is_put_right(farm: Farm, gpu17: Server, settings: Settings) -> None:
    good, path = farm.iam_key.read_bytes(), farm.folder / "another_key"
    settings.PORTAL_KEY_FILE = path
    for _ in range(2):
        path.write_bytes(b"no key")
        os.utime(path, (1, 1))  # as after restoring it with its times
        with pytest.raises(RemoteError, match="is not an SSH key"):
            remote.status(gpu17)
        path.write_bytes(good)
        os.utime(path, (1, 1))
        assert remote.status(gpu17).ok
    path.unlink()
    with pytest.raises(RemoteError, match="create_portal_key"):
        remote.status(gpu17)
