"""An older database was restored: the hosts refuse its pushes until staff raise the revision."""

import io
import sys
from typing import Any

import pytest
from django.core import serializers
from django.core.management import CommandError, call_command
from django.test import Client

from accounts.models import AuditEvent, KeyRange, Revision, SSHKey, User
from accounts.services import keys
from accounts.services.keys import add_keys
from servers import checks
from servers.models import Confirmation, KeySnapshot, Placement, Push, Server, ServerState
from servers.protocol import Message
from servers.services.push import revisions, runner
from tests.accounts.keys import line
from tests.servers.conftest import make_server, signed_in
from tests.servers.farm import Farm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))


@pytest.fixture
def restored(farm: Farm, alice: User) -> Server:
    """gpu17 has revision 3; the portal's database is as it was at revision 1."""
    server = make_server(farm)
    add_keys(actor="alice", user=alice, pasted=line(1))
    push_due()
    models = [SSHKey, KeyRange, Revision, Server, ServerState, Confirmation, Placement, KeySnapshot]
    backup = serializers.serialize("json", [row for model in models for row in model._default_manager.all()])
    for number in (2, 3):
        add_keys(actor="alice", user=alice, pasted=line(number))
    push_due()
    assert farm.register_file().count("\n") == 3
    for model in reversed(models):
        model._default_manager.all().delete()
    for row in serializers.deserialize("json", backup):
        row.save()
    server.refresh_from_db()
    assert server.state.applied_revision == keys.current_revision() == 1
    return server


def push_due() -> list[Push]:
    return runner.push_due(actor="test")


def run(*words: str) -> str:
    out = io.StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def refused(*words: str) -> tuple[int, str]:
    with pytest.raises(CommandError) as error:
        run(*words)
    return error.value.returncode, str(error.value)


def ids(**words: Any) -> list[str | None]:
    return [message.id for message in checks.no_server_is_ahead(**words)]


def test_y4_a_restored_older_database_removes_nothing_and_explains_what_to_do(
    farm: Farm, restored: Server, alice: User, staff: User
) -> None:
    add_keys(actor="alice", user=alice, pasted=line(4))
    (push,) = push_due()
    restored.refresh_from_db()
    assert push.state == "failed" and farm.register_file().count("\n") == 3
    assert restored.state.last_error == Message("server_ahead")
    assert restored.state.ahead_since and list(revisions.ahead()) == [restored]
    assert ids(databases=["default"]) == ["servers.W004"] and ids() == []
    page = signed_in(staff).get("/admin/").content.decode()
    assert "Ahead of the database" in page and "raise_revision" in page
    assert "ahead of the database" in signed_in(staff).get("/admin/servers/server/").content.decode()


def test_y4_a_server_at_the_same_revision_with_other_keys_is_noticed_before_a_push(
    farm: Farm, restored: Server
) -> None:
    assert ids(databases=["default"]) == []
    revisions.ask([restored])
    restored.refresh_from_db()
    assert restored.state.reported_revision == 3 and ids(databases=["default"]) == ["servers.W004"]
    assert farm.commands()[-1] == "status"


def test_raising_asks_for_confirmation_and_then_servers_accept_the_keys(farm: Farm, restored: Server) -> None:
    code, words = refused("raise_revision")
    assert code == 2 and "--yes" in words and keys.current_revision() == 1
    out = run("raise_revision", "--yes")
    assert "gpu17: revision 3" in out and "raised from 1 to 4" in out
    event = AuditEvent.objects.get(verb="revision.raised")
    assert event.detail == {"before": 1, "now": 4, "held": {"gpu17": 3}}
    (push,) = push_due()
    restored.refresh_from_db()
    assert push.state == "succeeded" and farm.register_file().count("\n") == 1
    assert (
        restored.state.applied_revision == 4 and restored.state.ahead_since is None and not revisions.ahead().exists()
    )


def test_an_unnecessary_raise_changes_nothing(farm: Farm, alice: User) -> None:
    make_server(farm)
    add_keys(actor="alice", user=alice, pasted=line(1))
    push_due()
    assert "Nothing was changed" in run("raise_revision", "--yes") and keys.current_revision() == 1


def test_the_same_revision_with_other_keys_makes_a_raise_necessary(farm: Farm, restored: Server) -> None:
    Revision.objects.update(number=3)
    assert "from 3 to 4" in run("raise_revision", "--yes")


def test_y4_another_history_under_the_same_revision_is_noticed_and_not_overwritten(
    farm: Farm, restored: Server, alice: User
) -> None:
    farm.change_applied("revision", 1)
    revisions.ask([restored])
    restored.refresh_from_db()
    assert restored.state.ahead_since and restored.state.applied_revision == 1 and push_due() == []
    assert farm.register_file().count("\n") == 3


def test_a_server_that_is_down_is_named_and_the_others_are_pushed_to(farm: Farm, restored: Server) -> None:
    make_server(farm, 1, address="127.0.0.99")
    out = io.StringIO()
    with pytest.raises(CommandError) as error:
        call_command("raise_revision", "--yes", stdout=out)
    assert (
        error.value.returncode == 1
        and str(error.value) == "No answer from gpu18. Run this again when they are reachable."
    )
    assert "from 1 to 4" in out.getvalue() and keys.current_revision() == 4


def test_a_host_that_lost_its_state_gets_its_keys_again(farm: Farm, alice: User, client: Client) -> None:
    server = make_server(farm)
    add_keys(actor="alice", user=alice, pasted=line(1))
    push_due()
    farm.keys_database().unlink()
    revisions.ask([server])
    server.refresh_from_db()
    assert server.state.applied_digest != "", "a row from before the push decides nothing"
    revisions.ask([server])
    server.refresh_from_db()
    assert (server.state.applied_revision, server.state.applied_digest) == (0, "")
    push_due()
    server.refresh_from_db()
    assert server.state.applied_revision == 1
    assert farm.applied_revision() == 1
