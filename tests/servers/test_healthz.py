from datetime import timedelta
from unittest.mock import patch

import pytest
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone

from servers.models import Server, ServerState, Worker
from servers.services.worker import heartbeat

pytestmark = pytest.mark.django_db


def test_well_while_the_worker_was_seen_lately(client: Client) -> None:
    heartbeat.beat()
    answer = client.get("/healthz")
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("worker_heartbeat_age_seconds") < 60
    assert body == {
        "ok": True,
        "database": "ok",
        "worker": "ok",
        "oldest_pending_seconds": None,
        "servers_behind": 0,
    }


def test_a_server_that_is_behind_is_told_in_seconds_and_is_no_fault_of_the_portals(
    client: Client, server: Server
) -> None:
    heartbeat.beat()
    ServerState.objects.update(behind_since=timezone.now() - timedelta(seconds=90))
    answer = client.get("/healthz")
    assert answer.status_code == 200 and answer.json()["servers_behind"] == 1
    assert 90 <= answer.json()["oldest_pending_seconds"] < 120


def test_not_well_when_no_worker_was_ever_seen(client: Client) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == 503 and answer.json()["worker_heartbeat_age_seconds"] is None
    assert Worker.objects.count() == 0, "GET never changes anything"


def test_not_well_when_the_worker_is_silent(client: Client) -> None:
    Worker.objects.create(seen_at=timezone.now() - timedelta(minutes=10))
    answer = client.get("/healthz")
    assert answer.status_code == 503 and answer.json()["worker"] == "silent"


def test_not_well_without_the_database_and_no_word_of_why(client: Client) -> None:
    with patch.object(heartbeat, "silence", side_effect=DatabaseError("password=secret")):
        answer = client.get("/healthz")
    assert answer.status_code == 503 and b"secret" not in answer.content
