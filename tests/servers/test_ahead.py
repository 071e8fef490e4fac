"""Servers ahead of the database: an older one was restored, or a server reports a revision that it cannot have."""

import io
import json
import re
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django.fixtures import Settings

from accounts.models import AuditEvent, Revision, SSHKey, User
from accounts.services import keys, people
from accounts.services.keys import add_keys, revoke_key
from servers import checks
from servers.models import HeldBackPush, Push, Server, ServerState
from servers.protocol import Message
from servers.services import remote
from servers.services.push import revisions, runner
from servers.services.status import backlog, key_status
from servers.ssh import sessions
from tests.accounts.keys import line
from tests.servers.backup import Backup
from tests.servers.conftest import give_key, key_body, make_server, push_due, signed_in
from tests.servers.farm import ADDRESSES, Farm
from tests.servers.real_worker import RealWorker, within

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]
FAR = 2**53


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))


@pytest.fixture
def gpu17(farm: Farm, transactional_db: None) -> Server:
    return make_server(farm)


@pytest.fixture
def restored(farm: Farm, gpu17: Server, alice: User, bob: User) -> Server:
    """Since the backup Alice removed key 1, Bob added key 3, and gpu17 and gpu18 applied both."""
    make_server(farm, 1)
    for number in (1, 2):
        give_key(alice, number)
    push_due()
    backup = Backup()
    revoke_key(actor="alice", key=SSHKey.objects.get(blob=line(1).split()[1]))
    give_key(bob, 3)
    push_due()
    assert on(farm) == on(farm, 1) == {2, 3}
    backup.restore()
    gpu17.refresh_from_db()
    assert gpu17.state.applied_revision == keys.current_revision() == 2
    return gpu17


def on(farm: Farm, number: int = 0) -> set[int]:
    """The numbers of the keys in the file that labhost wrote on this server."""
    text = farm.register_file(ADDRESSES[number])
    return {key for key in range(10) if key_body(key) in text}


def run(*words: str) -> str:
    out = io.StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def refused(*words: str) -> tuple[int, str]:
    with pytest.raises(CommandError) as error:
        run(*words)
    return error.value.returncode, str(error.value)


def warnings(**words: Any) -> list[str | None]:
    return [message.id for message in checks.no_server_is_ahead(**words)]


def states(number: int) -> set[str]:
    (status,) = key_status.status_of(list(SSHKey.objects.filter(blob=line(number).split()[1])))
    return {one.state for one in status.servers}


def review(client: Client, *servers: Server) -> tuple[str, dict[str, str]]:
    """The page with the differences, and the form in it."""
    chosen = {"action": "adopt", "_selected_action": [server.pk for server in servers]}
    page = client.post("/admin/servers/server/", chosen).content.decode()
    return page, dict(re.findall(r'name="(mark-\d+)" value="(\w+)"', page)) | {"confirmed": "yes"} | chosen


def edit_three_times(bob: User) -> None:
    give_key(bob, 4)
    give_key(bob, 5)
    revoke_key(actor="bob", key=SSHKey.objects.get(blob=line(5).split()[1]))


def test_z5_a_restored_database_brings_no_removed_key_back_until_staff_decide(
    farm: Farm, restored: Server, alice: User, bob: User, staff: User
) -> None:
    edit_three_times(bob)
    assert keys.current_revision() > 4, "above the servers' revision"
    assert {push.state for push in push_due()} == {"partial"}
    assert on(farm) == on(farm, 1) == {2}, "neither the removed key, nor what only one side knows"
    assert states(1) == states(4) == {"pending"}
    code, text = refused("push_status")
    assert code == 1 and "gpu17" in text and "gpu18" in text
    assert refused("push_keys")[0] == 1
    client = signed_in(staff)
    page, form = review(client, *Server.objects.all())
    assert page.count(SSHKey.objects.get(blob=line(1).split()[1]).fingerprint) == 2, "on each of both servers"
    revoke_key(actor="alice", key=SSHKey.objects.get(blob=line(1).split()[1]))
    client.post("/admin/servers/server/", form)
    assert backlog.ahead().count() == 2 and not AuditEvent.objects.filter(verb="server.adopted"), "others were shown"
    client.post("/admin/servers/server/", review(client, *Server.objects.all())[1])
    assert {push.state for push in push_due()} == {"succeeded"}
    assert on(farm) == on(farm, 1) == {2, 4} and states(4) == {"not registered"} and not backlog.ahead()
    assert AuditEvent.objects.filter(verb="server.adopted", actor="warden").count() == 2
    assert "2 keys live on 2 servers" in run("push_status")


def test_z5_servers_are_asked_when_the_worker_starts(
    farm: Farm, restored: Server, staff: User, tmp_path: Path, client: Client
) -> None:
    with RealWorker(farm, tmp_path) as worker:
        within(30, lambda: backlog.ahead().count() == 2, f"the servers' revisions ({worker.log()})")
        within(10, lambda: on(farm) == on(farm, 1) == {2}, "the removal")
    assert states(1) == states(2) == {"pending"}
    assert refused("push_status")[0] == 1 and warnings(databases=["default"]) == ["servers.W004"]
    body = client.get("/healthz").json()
    assert body["servers_ahead"] == body["servers_behind"] == 2
    page = signed_in(staff).get("/admin/").content.decode()
    assert "Ahead of the database" in page
    page = signed_in(staff).get("/admin/servers/server/").content.decode()
    assert "ahead of the database" in page and "all live" not in page


def test_z5_removal_and_lock_out_go_on_while_a_server_is_ahead(
    farm: Farm, restored: Server, alice: User, bob: User
) -> None:
    push_due_at_once()
    assert on(farm) == {2}
    revoke_key(actor="alice", key=SSHKey.objects.get(blob=line(2).split()[1]))
    push_due()
    assert on(farm) == on(farm, 1) == set() and states(2) == {"removed"}
    people.set_active(actor="warden", user=bob, active=False)
    push_due()
    restored.refresh_from_db()
    assert restored.state.ahead_since and restored.state.last_error == Message("server_ahead")


def push_due_at_once() -> list[Push]:
    """As after the question at the start of the worker."""
    revisions.ask(list(Server.objects.all()))
    return push_due()


def test_z5_a_database_that_knows_nobody_takes_away_nothing_at_once(
    farm: Farm, gpu17: Server, alice: User, bob: User, settings: Settings
) -> None:
    settings.PUSH_MIN_PEOPLE = 2
    empty = Backup()
    give_key(alice, 1)
    give_key(bob, 2)
    push_due()
    empty.restore()
    give_key(alice, 4)
    (push,) = push_due()
    gpu17.refresh_from_db()
    assert push.error and push.error.reason == "held_back" and on(farm) == {1, 2} and gpu17.state.ahead_since
    assert HeldBackPush.objects.get().removed_keys.keys() == {"alice", "bob"}


def test_z5_what_the_portal_itself_removed_goes_although_the_rest_is_held_back(
    farm: Farm, gpu17: Server, alice: User, bob: User, charlie: User, settings: Settings
) -> None:
    settings.PUSH_MIN_PEOPLE = 2
    give_key(alice, 1)
    push_due()
    backup = Backup()
    give_key(bob, 2)
    give_key(charlie, 3)
    push_due()
    backup.restore()
    people.set_active(actor="warden", user=alice, active=False)
    (push,) = push_due()
    assert push.error and push.error.reason == "held_back" and on(farm) == {2, 3}


def test_z5_the_newer_database_is_recognized(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice, 1)
    push_due()
    older = Backup()
    give_key(alice, 2)
    push_due()
    newer = Backup()
    older.restore()
    revisions.ask([gpu17])
    assert list(backlog.ahead()) == [gpu17]
    newer.restore()
    give_key(alice, 3)
    assert push_due()[0].state == "succeeded" and on(farm) == {1, 2, 3} and not backlog.ahead()


def test_y4_a_lost_answer_is_no_other_history(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice, 1)
    push_due()
    before = ServerState.objects.get()
    give_key(alice, 2)
    push_due()
    before.save()
    give_key(alice, 3)
    (push,) = push_due()
    assert push.state == "succeeded" and on(farm) == {1, 2, 3} and not backlog.ahead()


def test_y4_a_push_from_before_is_refused_also_after_the_number_has_fallen(
    farm: Farm, gpu17: Server, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    real = sessions.Session.ask

    def recording(self: sessions.Session, framed: bytes, seconds: float) -> Any:
        sent.append(framed)
        return real(self, framed, seconds)

    monkeypatch.setattr(sessions.Session, "ask", recording)
    lie(farm)
    give_key(alice, 1)
    push_due()
    run("adopt_server", "--yes")
    push_due()
    revoke_key(actor="alice", key=SSHKey.objects.get())
    push_due()
    assert farm.applied_revision() < 10 and on(farm) == set()
    late = list(sent)
    with remote.push_session(gpu17, seconds=20) as line_:
        assert {line_.ask(framed).code for framed in late[:-1]} == {"other_history"}
    assert on(farm) == set() and farm.applied_revision() == keys.current_revision()


def lie(farm: Farm, number: int = 0) -> None:
    """Have this server report a revision far above the portal's."""
    endpoint = Server.objects.get(address=ADDRESSES[number])
    if not farm.keys_database(ADDRESSES[number]).exists():
        runner.request_push(actor="test", servers=[endpoint])
        push_due()
    farm.change_applied("revision", FAR, ADDRESSES[number])
    farm.change_applied("id", secrets.token_hex(16), ADDRESSES[number])


def test_z6_a_server_that_lies_stops_no_other_and_can_be_reset(farm: Farm, alice: User) -> None:
    servers = [make_server(farm, number) for number in range(3)]
    give_key(alice, 1)
    push_due()
    lie(farm)
    push_due_at_once()
    give_key(alice, 2)
    ends = {push.server.name: push.state for push in push_due()}
    assert ends == {"gpu17": "partial", "gpu18": "succeeded", "gpu19": "succeeded"}
    assert list(backlog.ahead()) == servers[:1] and on(farm, 1) == on(farm, 2) == {1, 2}
    before = keys.current_revision()
    assert f"gpu17: revision {FAR}" in run("adopt_server", "--yes")
    assert {push.state for push in push_due()} == {"succeeded"}
    assert keys.current_revision() == before + 1 == farm.applied_revision()
    give_key(alice, 3)
    assert {push.state for push in push_due()} == {"succeeded"}
    assert on(farm) == on(farm, 1) == on(farm, 2) == {1, 2, 3}


def test_y4_a_server_at_the_same_revision_with_other_keys_is_noticed_before_a_push(
    farm: Farm, restored: Server
) -> None:
    Revision.objects.update(number=4)
    assert warnings(databases=["default"]) == [] and warnings() == []
    revisions.ask([restored])
    restored.refresh_from_db()
    assert restored.state.reported_revision == 4 and warnings(databases=["default"]) == ["servers.W004"]
    assert farm.commands()[-1] == "status"


def test_the_command_asks_for_confirmation_and_prints_the_differences(farm: Farm, restored: Server) -> None:
    push_due_at_once()
    code, words = refused("adopt_server")
    assert code == 2 and "--yes" in words
    out = run("adopt_server", "--yes", "gpu17")
    assert "gpu17: revision 4, 0 keys to remove, 1 to add" in out
    assert f"  + alice {SSHKey.objects.get(blob=line(1).split()[1]).fingerprint}" in out
    event = AuditEvent.objects.get(verb="server.adopted")
    assert event.object == "gpu17" and event.detail["there"] == 4 and event.detail["added"] == 1
    push_due()
    assert on(farm) == {1, 2} and on(farm, 1) == {2} and [row.name for row in backlog.ahead()] == ["gpu18"]


def test_the_command_changes_nothing_on_a_server_that_is_not_ahead(farm: Farm, gpu17: Server, alice: User) -> None:
    give_key(alice, 1)
    push_due()
    assert "Nothing was changed" in run("adopt_server", "--yes", "gpu17") and keys.current_revision() == 1


def test_a_server_that_is_down_is_named_and_the_others_are_replaced(farm: Farm, restored: Server) -> None:
    push_due_at_once()
    Server.objects.filter(name="gpu18").update(address="127.0.0.99")
    code, text = refused("adopt_server", "--yes")
    assert code == 1 and text == "No answer from gpu18. Run this again."
    push_due()
    assert [row.name for row in backlog.ahead()] == ["gpu18"]


def test_push_status_names_a_server_that_is_ahead_although_nobody_has_keys(farm: Farm, gpu17: Server) -> None:
    lie(farm)
    push_due_at_once()
    code, text = refused("push_status")
    assert code == 1 and "Ahead of the database: gpu17" in text
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("push_status", "--json", stdout=out)
    found = json.loads(out.getvalue())
    assert not found["ok"] and found["servers"]["gpu17"]["ahead"] and not found["servers"]["gpu17"]["ok"]


def test_a_host_that_lost_its_state_gets_its_keys_again(farm: Farm, gpu17: Server, alice: User) -> None:
    add_keys(actor="alice", user=alice, pasted=line(1))
    push_due()
    farm.keys_database().unlink()
    revisions.ask([gpu17])  # with the row as it was before the push
    gpu17.refresh_from_db()
    assert gpu17.state.applied_digest != "", "a row from before the push decides nothing"
    revisions.ask([gpu17])
    gpu17.refresh_from_db()
    assert (gpu17.state.applied_revision, gpu17.state.applied_digest) == (0, "")
    push_due()
    gpu17.refresh_from_db()
    assert gpu17.state.applied_revision == 1
    assert farm.applied_revision() == 1
