"""Pushes of changes, and of all keys when the base is in doubt; over real SSH to the real host program."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone
from django_q.models import OrmQ

from accounts.models import SSHKey, User
from accounts.services import numbers, people, revision
from accounts.services.keys import add_keys, revoke_key
from servers import protocol
from servers.models import Container, Push, Server, ServerState
from servers.services.push import runner
from servers.services.push.payloads import Payloads
from servers.ssh import sessions
from tests.accounts.keys import line
from tests.servers.conftest import give_key, key_body, make_server, push_due
from tests.servers.farm import ADDRESSES, Farm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


@pytest.fixture
def gpu17(farm: Farm, transactional_db: None) -> Server:
    return make_server(farm)


@pytest.fixture
def crowd(db: None) -> list[User]:
    """People with keys, so that one change is a small part."""
    users = [User.objects.create_user(f"user{n}", directory_id=f"id-{n}") for n in range(30)]
    for number, user in enumerate(users):
        numbers.assign(user)
        blob = protocol.digest({"x": [{"n": str(number)}]})
        SSHKey.objects.create(user=user, key_type="ssh-ed25519", blob=_blob(blob), fingerprint=f"SHA256:{number}")
    with transaction.atomic():
        revision.increment(users)
    return users


def _blob(seed: str) -> str:
    from base64 import b64encode

    return b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes.fromhex(seed)).decode()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The requests that are sent."""
    found: list[bytes] = []
    real = sessions.Session.ask

    def recording(self: sessions.Session, framed: bytes, seconds: float) -> protocol.Answer:
        found.append(framed)
        return real(self, framed, seconds)

    monkeypatch.setattr(sessions.Session, "ask", recording)
    return found


def test_only_changes_are_sent_over_the_open_session(
    farm: Farm, gpu17: Server, alice: User, crowd: list[User], sent: list[bytes]
) -> None:
    give_key(alice)
    push_due()
    key = give_key(alice, 1)
    assert push_due()[0].state == "succeeded"
    revoke_key(actor="alice", key=key)
    assert push_due()[0].state == "succeeded"
    assert [b'"changes"' in framed for framed in sent] == [False, True, True]
    assert len(sent[0]) > 4000 and max(len(framed) for framed in sent[1:]) < 1000
    assert farm.commands() == ["set-keys"]
    assert key_body() in farm.register_file() and key_body(1) not in farm.register_file()
    gpu17.refresh_from_db()
    assert gpu17.state.applied_digest == Payloads().digest


def test_n7_keys_too_long_for_one_request_fail_with_a_reason_and_a_removal_still_arrives(
    farm: Farm, gpu17: Server, alice: User, crowd: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = give_key(alice)
    push_due()
    assert key_body() in farm.register_file()
    monkeypatch.setattr(protocol, "MAX_REQUEST", 1000)
    runner.request_push(actor="warden", servers=[gpu17])  # of everybody
    failed = push_due()[0]
    assert (failed.state, failed.error and failed.error.reason) == ("failed", "request_too_long")
    ServerState.objects.update(next_attempt=None, attempted_at=None)
    revoke_key(actor="alice", key=key)
    assert push_due()[0].state == "succeeded" and key_body() not in farm.register_file()


def test_a_change_has_the_same_size_for_many_people_as_for_few(alice: User, crowd: list[User]) -> None:
    few = _length_of_a_change(alice, 1)
    for number in range(30):
        user = User.objects.create_user(f"more{number}", directory_id=f"more-{number}")
        numbers.assign(user)
        add_keys(actor="x", user=user, pasted=f"ssh-ed25519 {_blob(protocol.digest({str(number): []}))}")
    assert abs(_length_of_a_change(alice, 2) - few) < 20


def _length_of_a_change(user: User, number: int) -> int:
    base = Payloads()
    server = Server()
    server.state = ServerState(applied_revision=base.revision, applied_digest=base.digest)
    key = give_key(user, number)
    framed = Payloads().for_server(server).framed
    revoke_key(actor=user.username, key=key)
    return len(framed)


@pytest.mark.parametrize("lost", ["all", "revision"])
def test_y4_a_server_with_another_base_gets_all_keys_in_the_same_attempt(
    farm: Farm, gpu17: Server, alice: User, crowd: list[User], sent: list[bytes], lost: str
) -> None:
    give_key(alice)
    push_due()
    if lost == "all":
        farm.keys_database().unlink()
    else:
        farm.change_applied("digest", "0" * 64)
    give_key(alice, 1)
    (push,) = push_due()
    assert push.state == "succeeded" and [b'"changes"' in framed for framed in sent] == [False, True, False]
    assert key_body() in farm.register_file() and key_body(1) in farm.register_file()
    assert len(farm.commands()) == 1


def test_locking_out_and_unlocking_are_sent_as_changes(
    farm: Farm, gpu17: Server, alice: User, crowd: list[User], sent: list[bytes]
) -> None:
    give_key(alice)
    push_due()
    people.set_active(actor="warden", user=alice, active=False)
    push_due()
    assert key_body() not in farm.register_file()
    people.set_active(actor="warden", user=alice, active=True)
    push_due()
    assert key_body() in farm.register_file() and [b'"changes"' in framed for framed in sent] == [False, True, True]


def test_a_server_that_missed_a_deletion_drops_the_person(
    farm: Farm, gpu17: Server, alice: User, bob: User, crowd: list[User]
) -> None:
    give_key(alice)
    push_due()
    people.set_active(actor="warden", user=alice, active=False)
    people.delete(actor="warden", user=alice)
    give_key(bob, 1)
    assert push_due()[0].state == "succeeded"
    assert key_body() not in farm.register_file() and key_body(1) in farm.register_file()


def test_keys_from_before_the_first_port_are_sent_with_it(
    farm: Farm, gpu17: Server, crowd: list[User], alice: User
) -> None:
    late = User.objects.create_user("late", directory_id="late")
    add_keys(actor="late", user=late, pasted=line(5))
    push_due()
    assert key_body(5) not in farm.register_file()
    numbers.assign(late)
    assert push_due()[0].state == "succeeded" and key_body(5) in farm.register_file()


def test_a_requested_push_sends_all_keys_and_writes_nothing(
    farm: Farm, gpu17: Server, alice: User, crowd: list[User], sent: list[bytes]
) -> None:
    give_key(alice)
    push_due()
    folder = farm.folder / ADDRESSES[0]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    runner.request_push(actor="warden", servers=[gpu17])
    (push,) = push_due()
    assert push.state == "succeeded" and b'"users"' in sent[-1]
    kept = {path for path in before if path.name in ("keys.sqlite3", "authorized_keys")}
    assert kept and all(path.stat().st_mtime_ns == before[path] for path in kept)


def test_the_answer_to_a_change_does_not_change_other_containers(
    farm: Farm, gpu17: Server, alice: User, bob: User, crowd: list[User]
) -> None:
    users = farm.folder / ADDRESSES[0] / "state/users"
    users.mkdir()
    for name in ("alice", "bob"):
        (users / f"{name}.json").write_text(f'{{"name": "{name}", "address": "10.0.3.160", "port": 22000}}')
    give_key(alice)
    push_due()
    (users / "alice.json").unlink()
    give_key(alice, 1)
    push_due()
    assert [row.user for row in Container.objects.all()] == [bob]


def test_y8_a_partial_push_is_retried_without_sending_all_keys(
    farm: Farm, gpu17: Server, alice: User, crowd: list[User], sent: list[bytes]
) -> None:
    users = farm.folder / ADDRESSES[0] / "state/users"
    users.mkdir()
    (users / "user3.json").write_text("{")
    give_key(alice)
    assert push_due()[0].state == "partial"
    (users / "user3.json").unlink()
    ServerState.objects.update(next_attempt=timezone.now())
    (push,) = push_due()
    assert push.state == "succeeded" and b'"changes":{}' in sent[-1]


def test_y9_a_single_change_after_a_pause_is_pushed_at_once(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice)
    began = timezone.now()
    (push,) = push_due()
    assert push.finished_at is not None and push.finished_at - began < timedelta(seconds=3)


def back_off(server: Server) -> None:
    ServerState.objects.filter(pk=server.pk).update(
        next_attempt=timezone.now() + timedelta(minutes=5),
        attempts=9,
        attempted_at=timezone.now() - timedelta(minutes=1),
    )


def report_online(name: str, token: str) -> int:
    return (
        Client(enforce_csrf_checks=True)
        .post(f"/servers/{name}/online", headers={"Authorization": f"Bearer {token}"})
        .status_code
    )


@pytest.fixture
def token(gpu17: Server) -> str:
    import hashlib

    Server.objects.filter(pk=gpu17.pk).update(token_digest=hashlib.sha256(b"its-token").hexdigest())
    return "its-token"


def test_y1_a_server_that_reports_itself_online_is_retried_at_once(gpu17: Server, token: str, alice: User) -> None:
    back_off(gpu17)
    assert report_online("gpu17", token) == 204
    gpu17.refresh_from_db()
    assert gpu17.state.next_attempt and gpu17.state.next_attempt <= timezone.now()
    assert [row.func() for row in OrmQ.objects.all()] == ["servers.tasks.push_keys"]
    give_key(alice)
    assert push_due()[0].state == "succeeded"


def test_a_server_that_is_up_to_date_wakes_no_worker(gpu17: Server, token: str) -> None:
    assert report_online("gpu17", token) == 204 and not OrmQ.objects.exists()


@pytest.mark.parametrize(("name", "token_sent"), [("gpu17", "wrong"), ("gpu18", "its-token"), ("gpu17", "")])
def test_only_the_server_itself_can_report_that_it_is_online(
    gpu17: Server, token: str, name: str, token_sent: str
) -> None:
    back_off(gpu17)
    assert report_online(name, token_sent) == 403
    gpu17.refresh_from_db()
    assert gpu17.state.next_attempt and gpu17.state.next_attempt > timezone.now()


def test_the_address_seen_is_not_a_text_page(client: Client, gpu17: Server) -> None:
    assert client.get("/servers/gpu17/online").status_code == 405
    assert Push.objects.count() == 0
