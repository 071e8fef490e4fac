"""Pushes that fail: servers that do not answer, refuse or cannot write, and bad portal keys."""

import os
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts.models import AuditEvent, SSHKey, User
from servers import messages
from servers.models import Server, ServerState
from servers.protocol import Message
from servers.services import remote
from servers.services.push import results, runner
from servers.ssh import portal_key
from servers.ssh.dial import RemoteError
from tests.servers.conftest import OTHER, give_key, key_body, make_server, push_due
from tests.servers.farm import ADDRESSES, Farm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick", "no_thread_left")]


@pytest.fixture
def gpu17(farm: Farm, transactional_db: None) -> Server:
    return make_server(farm)


def test_y1_three_dead_of_20_servers_delay_no_other(farm: Farm, alice: User, black_hole: tuple[str, int]) -> None:
    dead = {
        "refuses": make_server(farm, 0, "a-refuses", address="127.0.0.99"),
        "hole": make_server(farm, 0, "a-hole", address=black_hole[0], ssh_port=black_hole[1]),
        "nameless": make_server(farm, 0, "a-nameless", address=f"{'x' * 64}.invalid"),
    }
    good = [make_server(farm, number) for number in range(17)]
    give_key(alice)
    began = timezone.now()
    done = {push.server.name: push for push in push_due()}
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


def test_y1_a_server_that_is_down_is_retried_and_gets_its_keys_when_it_returns(
    farm: Farm, gpu17: Server, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "BACKOFF_FIRST", 0.7)
    monkeypatch.setattr(runner, "QUICK_RETRY", timedelta(seconds=2))
    Server.objects.update(address="127.0.0.99")
    give_key(alice)
    failed = push_due()
    assert len(failed) >= 2, "a run makes the quick retries itself"
    gpu17.refresh_from_db()
    since = gpu17.state.behind_since
    assert gpu17.state.attempts == len(failed) and gpu17.state.next_attempt
    assert (gpu17.state.next_attempt - timezone.now()).total_seconds() > 1, "it does not back off"
    Server.objects.update(address=ADDRESSES[0])
    ServerState.objects.update(next_attempt=timezone.now())
    gpu17.refresh_from_db()
    assert gpu17.state.behind_since == since, "behind since the first failure"
    (push,) = push_due()
    gpu17.refresh_from_db()
    assert push.state == "succeeded" and gpu17.state.attempts == 0 and gpu17.state.behind_since is None


def test_y2_a_server_that_never_answers_times_out_without_delaying_the_others(
    farm: Farm, gpu17: Server, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SERVER_SECONDS", 3.0)
    other = make_server(farm, 1)
    farm.behave(ADDRESSES[0], "mute")
    give_key(alice)
    done = {push.server.name: push for push in push_due()}
    assert done["gpu17"].state == "failed" and done["gpu17"].error == Message("timeout")
    good = done[other.name]
    assert good.state == "succeeded" and good.started_at and good.finished_at
    late = done["gpu17"].finished_at
    assert late and good.finished_at < late


def test_y2_a_dozen_hanging_servers_delay_no_other(farm: Farm, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SERVER_SECONDS", 6.0)
    for number in range(12):
        make_server(farm, number, f"a-hangs{number}")
        farm.behave(ADDRESSES[number], "mute")
    good = [make_server(farm, number) for number in range(12, 20)]
    give_key(alice)
    done = {push.server.name: push for push in push_due()}
    ends = {name: push.finished_at for name, push in done.items() if push.finished_at}
    assert all(done[server.name].state == "succeeded" for server in good)
    assert max(ends[server.name] for server in good) < min(ends[f"a-hangs{number}"] for number in range(12))


def test_y4_a_host_with_another_newer_revision_adds_nothing_and_staff_can_read_the_reason(
    farm: Farm, gpu17: Server, alice: User
) -> None:
    give_key(alice)
    push_due()
    farm.change_applied("revision", 9)
    farm.change_applied("id", "f" * 32)
    give_key(alice, 1)
    before = farm.register_file()
    push = push_due()[0]
    assert push.state == "partial" and push.error == Message("server_ahead")
    assert farm.register_file() == before
    gpu17.refresh_from_db()
    assert gpu17.state.held_revision == 0 and gpu17.state.next_attempt


def test_y5_nothing_is_sent_to_a_server_with_a_changed_host_key_and_staff_see_the_new_key(
    farm: Farm, gpu17: Server, alice: User
) -> None:
    Server.objects.update(host_key=OTHER)
    give_key(alice)
    (push,) = push_due()
    gpu17.refresh_from_db()
    assert push.state == "failed" and farm.commands() == []
    assert gpu17.offered_host_key == farm.host_key and gpu17.host_key == OTHER
    ServerState.objects.update(next_attempt=timezone.now())
    push_due()
    assert AuditEvent.objects.filter(verb="server.host_key_refused").count() == 1, "once, not at each attempt"


def test_y5_nothing_is_sent_to_a_server_without_a_pinned_host_key(farm: Farm, gpu17: Server, alice: User) -> None:
    Server.objects.update(host_key="")
    give_key(alice)
    (push,) = push_due()
    assert push.state == "failed" and push.error == Message("host_key_unknown") and farm.commands() == []


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [("garbage", "not JSON"), ("liar", "another revision"), ("fails-all", "disk is full")],
)
def test_y6_a_host_that_could_not_write_is_retried(
    farm: Farm, gpu17: Server, alice: User, behaviour: str, words: str
) -> None:
    farm.behave(ADDRESSES[0], behaviour)
    give_key(alice)
    push = push_due()[0]
    gpu17.refresh_from_db()
    assert push.state == "failed" and words in messages.render(push.error)
    assert gpu17.state.applied_revision == 0 and gpu17.state.next_attempt and gpu17.state.behind_since


def test_y8_one_bad_entry_fails_only_for_that_person_and_is_retried(
    farm: Farm, gpu17: Server, alice: User, bob: User
) -> None:
    give_key(alice)
    key = give_key(bob, 1)
    SSHKey.objects.filter(pk=key.pk).update(blob="AAAAbroken")
    push = push_due()[0]
    gpu17.refresh_from_db()
    assert push.state == "partial" and push.error == Message("people_failed", {"count": 1})
    assert set(push.results) == {"bob"} and push.results["bob"]["host"] == "failed" and push.results["bob"]["error"]
    assert key_body() in farm.register_file()
    assert gpu17.state.applied_revision == 2 and gpu17.state.next_attempt and gpu17.state.behind_since


def test_without_a_portal_key_the_error_explains_what_to_do(
    farm: Farm, gpu17: Server, alice: User, settings: Settings
) -> None:
    settings.PORTAL_KEY_FILE = farm.folder / "none"
    give_key(alice)
    (push,) = push_due()
    assert push.state == "failed" and "create_portal_key" in messages.render(push.error)


def test_when_a_server_refuses_the_portal_key_the_error_explains_what_to_do(
    farm: Farm, gpu17: Server, alice: User, settings: Settings
) -> None:
    settings.PORTAL_KEY_FILE = farm.folder / "fresh_key"
    portal_key.create(settings.PORTAL_KEY_FILE)
    give_key(alice)
    (push,) = push_due()
    assert push.state == "failed" and "deploy_server gpu17" in messages.render(push.error)


def test_a_corrected_portal_key_works_at_once(farm: Farm, gpu17: Server, settings: Settings) -> None:
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
