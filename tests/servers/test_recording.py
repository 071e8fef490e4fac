import pytest
from django.utils import timezone

from accounts.models import User
from accounts.services.keys import add_keys
from servers.models import Container, Server, ServerState
from servers.protocol import Answer, ContainerFact, Message
from servers.services.push import results
from servers.services.push.results import backoff
from servers.services.status import placements
from tests.accounts.keys import line
from tests.servers.pushes import claim, record


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 2), (2, 4), (5, 32), (9, 300), (100, 300)])
def test_y1_the_pause_doubles_up_to_five_minutes(attempts: int, seconds: float) -> None:
    pauses = {backoff(attempts).total_seconds() for _ in range(50)}
    assert all(0.8 * seconds <= pause <= min(300, 1.2 * seconds) for pause in pauses)
    assert len(pauses) > 10, "without chance in it all servers come in step"


def test_what_waiting_does_not_mend_is_tried_rarely() -> None:
    assert backoff(1, permanent=True).total_seconds() >= 240


@pytest.mark.django_db
def test_containers_of_people_who_were_not_named_are_left_alone(server: Server, alice: User, bob: User) -> None:
    now = timezone.now()
    running, stopped = ContainerFact("running", "10.0.3.160"), ContainerFact("stopped", "10.0.3.161")
    placements.record_containers(server, {"alice": running, "bob": running}, now=now)
    placements.record_containers(server, {"alice": stopped}, now=now, among=["alice"])
    states = dict(Container.objects.values_list("user__username", "state"))
    assert states == {"alice": "stopped", "bob": "running"}
    placements.record_containers(server, {}, now=now, among=["alice"])
    assert [row.user for row in Container.objects.all()] == [bob], "alice was named, and has none"
    placements.record_containers(server, {}, now=now)
    assert not Container.objects.exists()


@pytest.mark.django_db
def test_y4_a_stale_push_is_no_sign_of_a_newer_database_if_the_portal_itself_was_faster(
    server: Server, alice: User
) -> None:
    add_keys(actor="alice", user=alice, pasted=line(1))
    late = claim(server)
    add_keys(actor="alice", user=alice, pasted=line(2))
    refusal = Answer(ok=False, code="stale_revision", error=Message("revision_older"))
    outcome = results.evaluate(1, "d" * 64, refusal)
    ServerState.objects.update(applied_revision=2)  # by another worker meanwhile
    record(late, outcome)
    server.refresh_from_db()
    assert outcome.stale and outcome.permanent and server.state.ahead_since is None
    again = claim(server)
    record(again, results.evaluate(2, "d" * 64, refusal))
    now_ahead = Server.objects.get()
    assert now_ahead.state.ahead_since and now_ahead.state.last_error == Message("server_ahead")
