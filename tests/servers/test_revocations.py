"""Case Z9: keys that staff revoked by hand on a server are honoured by the portal, within limits."""

import hashlib
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import AuditEvent, SSHKey, User
from accounts.services import people
from accounts.services.keys import add_keys
from servers import tasks
from servers.models import HandRevocation, Push, Server, ServerState
from servers.protocol import Answer, parse_answer
from servers.revoked_keys import MAX_KEYS, RevokedKey
from servers.services.push import revocations, runner
from servers.services.push.payloads import Payloads
from servers.services.status import key_status
from tests.accounts.keys import line
from tests.servers.conftest import make_server, signed_in
from tests.servers.farm import ADDRESSES, Farm

State = HandRevocation.State


def report(server: Server, *keys: SSHKey, name: str = "") -> None:
    rows = tuple(RevokedKey(key.fingerprint, name or key.user.username, 1_790_000_000) for key in keys)
    revocations.record(server, Answer(ok=True, revoked=rows))


def make_people(count: int) -> list[SSHKey]:
    found = []
    for number in range(count):
        user = User.objects.create_user(f"person{number}")
        found += add_keys(actor="test", user=user, pasted=line(number)).added
    return found


@pytest.fixture
def gpu17(db: None) -> Server:
    return Server.objects.create(name="gpu17", address="172.16.2.17")


@pytest.fixture
def key(alice: User) -> SSHKey:
    return add_keys(actor="alice", user=alice, pasted=line()).added[0]


def test_z9_a_key_revoked_on_a_server_is_removed_everywhere(gpu17: Server, key: SSHKey) -> None:
    report(gpu17, key)
    key.refresh_from_db()
    assert not key.is_active
    removed = AuditEvent.objects.get(verb="key.removed")
    assert (removed.actor, removed.object) == ("gpu17", "alice")
    row = HandRevocation.objects.get()
    assert (row.state, row.decided_by, row.server) == (State.REMOVED, "gpu17", gpu17)


def test_z9_a_push_acknowledges_it_until_the_server_no_longer_reports_it(gpu17: Server, key: SSHKey) -> None:
    assert b"acknowledged" not in Payloads().whole("").framed
    report(gpu17, key)
    assert f'"acknowledged":["{key.fingerprint}"]'.encode() in Payloads().whole("").framed
    report(gpu17)
    assert revocations.acknowledged() == []
    assert b"acknowledged" not in Payloads().whole("").framed
    assert HandRevocation.objects.get().state == State.REMOVED, "the history stays"


def test_z9_reported_again_it_is_removed_once(gpu17: Server, key: SSHKey) -> None:
    report(gpu17, key)
    report(gpu17, key)
    assert AuditEvent.objects.filter(verb="key.removed").count() == 1
    assert HandRevocation.objects.count() == 1


def test_z9_a_key_that_was_added_again_meanwhile_stays(gpu17: Server, alice: User) -> None:
    pasted = line()
    first = add_keys(actor="alice", user=alice, pasted=pasted).added[0]
    report(gpu17, first)
    again = add_keys(actor="alice", user=alice, pasted=pasted).added[0]
    report(gpu17, first)
    again.refresh_from_db()
    assert again.is_active and revocations.acknowledged() == [first.fingerprint]


def test_z9_a_server_removes_the_keys_of_only_a_few_people_an_hour(gpu17: Server) -> None:
    keys = make_people(revocations.MAX_PEOPLE + 2)
    report(gpu17, *keys)
    active = SSHKey.objects.active().count()
    assert active == 2, "the others wait for staff"
    assert HandRevocation.objects.filter(state=State.WAITING).count() == 2
    report(gpu17, *keys)
    assert SSHKey.objects.active().count() == active
    earlier = timezone.now() - timedelta(hours=2)
    HandRevocation.objects.filter(state=State.REMOVED).update(decided_at=earlier)
    report(gpu17, *keys)
    assert not SSHKey.objects.active().exists()


def test_z9_several_keys_of_one_person_count_once(gpu17: Server, alice: User) -> None:
    report(gpu17, *add_keys(actor="alice", user=alice, pasted="\n".join(map(line, range(9)))).added)
    assert not SSHKey.objects.active().exists()


def test_z9_a_key_of_somebody_else_or_of_nobody_is_ignored(gpu17: Server, key: SSHKey, bob: User) -> None:
    report(gpu17, key, name="bob")
    revocations.record(gpu17, Answer(ok=True, revoked=(RevokedKey("SHA256:" + "A" * 43, "alice", 1),)))
    key.refresh_from_db()
    assert key.is_active and not HandRevocation.objects.exists()


def test_z9_an_answer_that_does_not_say_changes_nothing(gpu17: Server, key: SSHKey) -> None:
    report(gpu17, key)
    revocations.record(gpu17, Answer(ok=True))
    assert HandRevocation.objects.get().is_listed


def test_z9_a_key_of_a_locked_out_person_does_not_return_with_them(gpu17: Server, key: SSHKey, alice: User) -> None:
    people.set_active(actor="boss", user=alice, active=False)
    report(gpu17, key)
    people.set_active(actor="boss", user=alice, active=True)
    assert not SSHKey.objects.wanted().exists()


@pytest.fixture
def waiting(gpu17: Server, monkeypatch: pytest.MonkeyPatch, key: SSHKey) -> HandRevocation:
    monkeypatch.setattr(revocations, "MAX_PEOPLE", 0)
    report(gpu17, key)
    return HandRevocation.objects.get(state=State.WAITING)


def test_z9_pages_do_not_call_a_revoked_key_live(gpu17: Server, waiting: HandRevocation, key: SSHKey) -> None:
    ServerState.objects.update(applied_revision=1, applied_digest="d" * 64)
    (one,) = key_status.status_of([key])[0].servers
    assert (one.state, one.reason) == ("failed", "revoked on the server by its staff")
    revocations.keep(actor="boss", rows=[waiting])
    (one,) = key_status.status_of([key])[0].servers
    assert one.state != "failed"


def test_z9_what_was_undone_on_the_server_waits_no_longer(gpu17: Server, waiting: HandRevocation) -> None:
    report(gpu17)
    assert not HandRevocation.objects.exists()


def test_z9_staff_remove_or_keep_what_waits(staff: User, waiting: HandRevocation, key: SSHKey) -> None:
    staff_client = signed_in(staff)
    page, other = "/admin/servers/handrevocation/", Server.objects.create(name="gpu18", address="172.16.2.18")
    report(other, key)
    assert (
        b"1 waiting for your decision" in staff_client.get(f"/admin/servers/server/{waiting.server_id}/change/").content
    )
    asked = staff_client.post(page, {"action": "keep_keys", "_selected_action": waiting.pk})
    assert key.fingerprint in asked.content.decode() and waiting.state == State.WAITING
    chosen = {"_selected_action": waiting.pk, "confirmed": "yes"}
    staff_client.post(page, {"action": "keep_keys", **chosen})
    assert set(HandRevocation.objects.values_list("state", flat=True)) == {State.KEPT}, "of both servers"
    assert Push.objects.filter(server=waiting.server, state="queued").exists(), "which gives the key back"
    assert SSHKey.objects.active().exists() and revocations.acknowledged() == [key.fingerprint]
    HandRevocation.objects.update(state=State.WAITING)
    staff_client.post(page, {"action": "remove_keys", **chosen})
    assert not SSHKey.objects.active().exists()
    assert AuditEvent.objects.get(verb="key.removed").actor == "warden"


def answer_with(revoked: str) -> Answer:
    return parse_answer(f'{{"version": 1, "ok": true, "revoked": {revoked}}}'.encode())


@pytest.mark.parametrize(
    "row",
    [
        '"x"', "7", "{}", '{"fingerprint": "SHA256:x", "name": "alice", "at": 1}',
        '{"fingerprint": "SHA256:%s", "name": "../alice", "at": 1}', '{"fingerprint": "SHA256:%s", "name": "alice"}',
        '{"fingerprint": "SHA256:%s", "name": "alice", "at": true}',
        '{"fingerprint": "SHA256:%s", "name": "alice", "at": 1e30}',
        '{"fingerprint": "SHA256:%s\\n", "name": "alice", "at": 1}',
    ],
)  # fmt: skip
def test_z9_a_row_that_does_not_fit_is_left_out(row: str) -> None:
    good = '{"fingerprint": "SHA256:%s", "name": "alice", "at": 1}' % ("B" * 43)
    answer = answer_with(f"[{row.replace('%s', 'A' * 43)}, {good}]")
    assert answer.revoked == (RevokedKey("SHA256:" + "B" * 43, "alice", 1),)


def test_z9_a_flood_of_rows_is_cut() -> None:
    row = '{"fingerprint": "SHA256:%s", "name": "alice", "at": 1}' % ("B" * 43)
    many = answer_with(f"[{', '.join([row] * 5000)}]").revoked
    assert many is not None and len(many) == MAX_KEYS


@pytest.mark.django_db(transaction=True)
def test_z9_the_host_program_reports_it_and_forgets_it_when_it_is_acknowledged(
    farm: Farm, quick: None, alice: User
) -> None:
    server = make_server(farm)
    key = add_keys(actor="alice", user=alice, pasted=line()).added[0]
    runner.push_due(actor="test")
    note = farm.folder / ADDRESSES[0] / "state/revoked.json"
    note.write_text(f'{{"keys": [{{"fingerprint": "{key.fingerprint}", "name": "alice", "at": 1790000000}}]}}')
    assert key.blob in farm.register_file()
    runner.request_push(actor="test", servers=[server])
    tasks.push_keys()
    key.refresh_from_db()
    assert not key.is_active and key.blob not in farm.register_file()
    tasks.push_keys()
    assert '"keys": []' in note.read_text()
    runner.request_push(actor="test", servers=[server])
    tasks.push_keys()
    assert HandRevocation.objects.filter(is_listed=False, state=State.REMOVED).count() == 1


@pytest.mark.django_db(transaction=True)
def test_z9_a_server_that_has_something_to_report_is_asked(
    farm: Farm, quick: None, client: Client, alice: User
) -> None:
    server = make_server(farm)
    key = add_keys(actor="alice", user=alice, pasted=line()).added[0]
    runner.push_due(actor="test")
    ServerState.objects.update(inspected_at=timezone.now() - timedelta(minutes=1))
    note = farm.folder / ADDRESSES[0] / "state/revoked.json"
    note.write_text(f'{{"keys": [{{"fingerprint": "{key.fingerprint}", "name": "alice", "at": 1790000000}}]}}')
    Server.objects.update(token_digest=hashlib.sha256(b"its-token").hexdigest())
    page, header = f"/servers/{server.name}/online", {"Authorization": "Bearer its-token"}
    client.post(page, headers=header)
    tasks.inspect()
    assert SSHKey.objects.active().exists(), "nothing to report"
    client.post(f"{page}?revoked=1", headers=header)
    tasks.inspect()
    assert not SSHKey.objects.active().exists()
