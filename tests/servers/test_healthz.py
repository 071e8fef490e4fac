from datetime import timedelta
from unittest.mock import patch

import pytest
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone

from servers.models import Server, ServerState, Worker
from servers.services.worker import heartbeat

pytestmark = pytest.mark.django_db


def test_status_is_ok_after_a_recent_heartbeat(client: Client) -> None:
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
        "servers_ahead": 0,
    }


def test_a_server_that_is_behind_is_reported_in_seconds_and_is_no_failure(client: Client, server: Server) -> None:
    heartbeat.beat()
    ServerState.objects.update(behind_since=timezone.now() - timedelta(seconds=90))
    answer = client.get("/healthz")
    assert answer.status_code == 200 and answer.json()["servers_behind"] == 1
    assert 90 <= answer.json()["oldest_pending_seconds"] < 120


def test_status_is_failed_without_any_heartbeat(client: Client) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == 503 and answer.json()["worker_heartbeat_age_seconds"] is None
    assert Worker.objects.count() == 0, "GET never changes anything"


def test_status_is_failed_after_an_old_heartbeat(client: Client) -> None:
    Worker.objects.create(seen_at=timezone.now() - timedelta(minutes=10))
    answer = client.get("/healthz")
    assert answer.status_code == 503 and answer.json()["worker"] == "silent"


def test_status_is_failed_without_the_database_and_shows_no_details(client: Client) -> None:
    with patch.object(heartbeat, "silence", side_effect=DatabaseError("password=secret")):
        answer = client.get("/healthz")
    assert answer.status_code == 503 and b"secret" not in answer.content
