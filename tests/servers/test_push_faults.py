"""Pushes that fail: servers that do not answer, refuse or cannot write, and bad portal keys."""

import base64
import hashlib
import os
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts.models import AuditEvent, SSHKey, User
from accounts.services.keys import current_revision, revoke_key
from servers import messages
from servers.models import Server, ServerState
from servers.protocol import Message
from servers.services import remote
from servers.services.push import results, runner
from servers.services.status import key_ranges
from servers.ssh import portal_key
from servers.ssh.dial import RemoteError
from tests.servers import key_states
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


def test_y8_z4_one_bad_key_costs_that_key_only_and_is_retried(
    farm: Farm, gpu17: Server, alice: User, bob: User
) -> None:
    give_key(alice)
    bad, good, removed = (give_key(bob, number) for number in (1, 2, 3))
    push_due()
    blob = bad.blob[:-4]
    fingerprint = "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(blob)).digest()).decode().rstrip("=")
    SSHKey.objects.filter(pk=bad.pk).update(blob=blob, fingerprint=fingerprint)
    revoke_key(actor="bob", key=removed)
    push = push_due()[0]
    gpu17.refresh_from_db()
    assert push.state == "partial" and push.error == Message("people_failed", {"count": 1})
    error = {"reason": "key_refused", "params": {"fingerprint": fingerprint, "cause": "key_malformed"}}
    assert push.results == {"bob": {"host": "absent", "container": "absent", "error": error}}
    assert key_body() in farm.register_file() and good.blob in farm.register_file()
    assert removed.blob not in farm.register_file() and blob not in farm.register_file()
    assert [key_states.on(key, gpu17).state for key in (bad, good, removed)] == ["failed", "not registered", "removed"]
    assert key_states.on(bad, gpu17).reason == "one of the keys is damaged"
    assert bad in key_ranges.late_keys(gpu17)
    assert gpu17.state.applied_revision == current_revision() and gpu17.state.next_attempt and gpu17.state.behind_since


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
