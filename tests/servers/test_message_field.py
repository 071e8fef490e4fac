"""Coded messages in the database."""

from pathlib import Path

import pytest
from django.core.management import call_command

from servers.models import Push, Server, ServerState
from servers.protocol import Message

pytestmark = pytest.mark.django_db
FULL = Message("connection_failed", {"address": "172.16.2.17", "port": 22, "detail": "no route to host"})


@pytest.mark.parametrize("error", [None, FULL])
def test_a_message_is_stored_and_read_back(server: Server, error: Message | None) -> None:
    push = Push.objects.create(server=server, error=error)
    assert Push.objects.get(pk=push.pk).error == error
    assert list(Push.objects.values_list("error", flat=True)) == [error]
    Push.objects.update(error=FULL)
    push.refresh_from_db()
    assert push.error == FULL
    push.error = error
    Push.objects.bulk_update([push], ["error"])
    assert Push.objects.get().error == error


def test_rows_are_found_by_their_reason(server: Server) -> None:
    Push.objects.create(server=server, error=FULL)
    assert Push.objects.filter(error__reason="connection_failed", error__params__port=22).exists()
    assert not Push.objects.filter(error__isnull=True).exists()


def test_a_message_survives_a_backup_as_json(server: Server, tmp_path: Path) -> None:
    ServerState.objects.update(last_error=FULL)
    call_command("dumpdata", "servers.server", "servers.serverstate", output=str(tmp_path / "backup.json"))
    ServerState.objects.update(last_error=None)
    call_command("loaddata", str(tmp_path / "backup.json"), verbosity=0)
    assert Server.objects.get().state.last_error == FULL
