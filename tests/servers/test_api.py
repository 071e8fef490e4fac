import io

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from accounts.models import SSHKey, User
from accounts.services import people
from accounts.services.keys import add_keys, revoke_keys
from servers.models import Container, Push, Server
from servers.protocol import Message
from servers.services import tokens
from tests.accounts.keys import fingerprint, line
from tests.servers.conftest import PINNED, signed_in
from tests.servers.pushes import ACCOUNT, fail, push

pytestmark = pytest.mark.django_db
PATHS = ["me", "servers", "containers", "keys", "pushes", "users"]


def api(user: User) -> Client:
    token = tokens.create(actor=user.username, user=user)
    return Client(headers={"Authorization": f"Token {token}"})


@pytest.fixture
def everything(server: Server, alice: User, bob: User) -> Server:
    add_keys(actor="alice", user=alice, pasted=line())
    row = {"host": "written", "container": "failed", "error": {"reason": "disk_full", "params": {}}}
    Container.objects.create(server=server, user=alice, state="running", address="10.0.3.160")
    Push.objects.create(server=server, state="partial", results={"alice": row}, finished_at=timezone.now())
    Server.objects.create(name="gpu99", address="172.16.2.99", enabled=False)
    return server


@pytest.mark.parametrize("path", PATHS)
def test_without_a_token_nothing_is_shown(path: str) -> None:
    assert Client().get(f"/api/v1/{path}").status_code == 401


def test_me_is_the_caller(everything: Server, alice: User) -> None:
    assert api(alice).get("/api/v1/me").json() == {
        "name": "alice",
        "full_name": "Alice Archer",
        "is_active": True,
        "is_staff": False,
        "port": alice.port.number,
        "subuid": alice.subuids.start,
        "keys": [fingerprint(line())],
    }


def test_a_local_account_has_no_port_or_subuids(staff: User) -> None:
    own = api(staff).get("/api/v1/me").json()
    assert own["port"] is None and own["subuid"] is None


def test_servers_in_service_are_listed_without_their_secrets(everything: Server, alice: User) -> None:
    client = api(alice)
    (row,) = client.get("/api/v1/servers").json()["results"]
    assert row["name"] == "gpu17" and row["fingerprint"].startswith("SHA256:")
    assert not {"token_digest", "host_key", "last_error"} & set(row)
    assert client.get("/api/v1/servers/gpu17").json() == row
    assert client.get("/api/v1/servers/gpu99").status_code == 404


def test_people_see_only_their_own_rows(everything: Server, alice: User) -> None:
    client = api(alice)
    (container,) = client.get("/api/v1/containers").json()["results"]
    assert (container["user"], container["server"], container["state"]) == ("alice", "gpu17", "running")
    (push,) = client.get("/api/v1/pushes").json()["results"]
    error = push["results"]["alice"]["error"]
    assert error == {
        "reason": "disk_full",
        "params": {},
        "text": "The server's disk is full; ask the lab's staff to free space.",
    }


def test_a_key_has_its_state_and_reason_on_each_server(everything: Server, alice: User) -> None:
    fail(Server.objects.create(name="gpu18", address="172.16.2.18", host_key=PINNED))
    push(everything, {"alice": ACCOUNT})
    client = api(alice)
    (row,) = client.get("/api/v1/keys").json()["results"]
    assert (row["user"], row["fingerprint"], row["removed"]) == ("alice", fingerprint(line()), None)
    assert (row["summary"], row["live"], row["total"]) == ("live on 1 of 2 servers", 1, 2)
    live, waiting = row["servers"]
    assert (live["server"], live["state"], live["reason"]) == ("gpu17", "live", "") and live["since"]
    states = {place["name"]: place["state"] for place in live["places"]}
    assert states == {"host account": "live", "container": "not registered", "register": "live"}
    assert (waiting["server"], waiting["state"], waiting["reason"]) == (
        "gpu18",
        "pending",
        "the server cannot be reached (no route to host)",
    )
    assert waiting["next_retry"]
    assert client.get(f"/api/v1/keys/{row['id']}").json() == row


def test_removed_keys_are_listed_on_request(everything: Server, alice: User, staff: User) -> None:
    push(everything, {"alice": ACCOUNT})
    revoke_keys(actor="alice", keys=alice.ssh_keys.all())
    client = api(staff)
    assert client.get("/api/v1/keys?user=alice").json()["results"] == []
    (row,) = client.get("/api/v1/keys?removed=true&user=Alice").json()["results"]
    assert row["removed"] and row["servers"][0]["state"] == "removing"
    assert client.get("/api/v1/keys?removed=true&user=bob").json()["results"] == []


def test_the_list_of_keys_costs_the_same_for_many_people(
    everything: Server, staff: User, django_assert_max_num_queries: object
) -> None:
    client = api(staff)
    for number in range(1, 8):
        user = User.objects.create_user(f"u{number}", directory_id=f"d{number}")
        add_keys(actor="test", user=user, pasted=line(number))
    with django_assert_max_num_queries(14):  # type: ignore[operator]
        assert len(client.get("/api/v1/keys").json()["results"]) == 8


def test_charlie_sees_nothing_of_alice(everything: Server, charlie: User) -> None:
    client, container, push = api(charlie), Container.objects.get(), Push.objects.get()
    answers = [client.get(f"/api/v1/{path}") for path in ("me", "servers", "containers", "pushes", "keys")]
    answers += [client.get(f"/api/v1/keys?user=alice&removed={word}") for word in ("true", "false")]
    answers += [client.get(f"/api/v1/keys/{SSHKey.objects.get().pk}")]
    answers += [client.get(f"/api/v1/pushes/{push.pk}"), client.get(f"/api/v1/containers/{container.pk}")]
    assert [answer.status_code for answer in answers] == [200] * 7 + [404, 200, 404]
    for answer in answers:
        assert b"alice" not in answer.content and b"10.0.3.160" not in answer.content


@pytest.mark.parametrize("path", ["users", "users/alice", "users/charlie"])
def test_only_staff_can_list_people(everything: Server, charlie: User, path: str) -> None:
    assert api(charlie).get(f"/api/v1/{path}").status_code == 403


def test_staff_see_everything(everything: Server, staff: User) -> None:
    client = api(staff)
    assert {row["name"] for row in client.get("/api/v1/users").json()["results"]} == {"alice", "bob", "warden"}
    assert client.get("/api/v1/users/alice").json()["full_name"] == "Alice Archer"
    assert len(client.get("/api/v1/servers").json()["results"]) == 2
    assert "alice" in client.get("/api/v1/pushes").json()["results"][0]["results"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nothing_can_be_changed(everything: Server, staff: User, path: str, method: str) -> None:
    answer = getattr(api(staff), method)(f"/api/v1/{path}", data={}, content_type="application/json")
    assert answer.status_code == 405


def test_o1_the_token_of_a_locked_out_person_is_refused(everything: Server, alice: User) -> None:
    client = api(alice)
    User.objects.update(is_active=False)
    assert client.get("/api/v1/me").status_code == 401


def test_z7_sessions_and_tokens_from_before_a_lock_out_stay_refused_after_the_unlock(
    everything: Server, alice: User, bob: User
) -> None:
    by_token, by_session, other = api(alice), signed_in(alice), api(bob)
    assert by_session.get("/me/").status_code == by_token.get("/api/v1/me").status_code == 200
    for active in (False, True):
        assert people.set_active(actor="warden", user=alice, active=active)
        assert by_token.get("/api/v1/me").status_code == by_session.get("/api/v1/me").status_code == 401
        assert by_session.get("/me/").status_code == 302
    assert other.get("/api/v1/me").status_code == 200
    assert signed_in(User.objects.get(pk=alice.pk)).get("/me/").status_code == 200, "a new sign-in works"


def test_the_list_of_people_costs_the_same_for_many(staff: User, django_assert_max_num_queries: object) -> None:
    client = api(staff)
    for number in range(20):
        User.objects.create_user(f"u{number}", directory_id=f"d{number}")
    with django_assert_max_num_queries(8):  # type: ignore[operator]
        assert len(client.get("/api/v1/users").json()["results"]) == 21


def test_the_schema_has_no_warnings_and_names_every_path() -> None:
    out = io.StringIO()
    call_command("spectacular", validate=True, fail_on_warn=True, stdout=out)
    assert all(f"/api/v1/{path}:" in out.getvalue() for path in PATHS)
    assert Client().get("/api/schema/").status_code == 200


def test_staff_and_people_get_separate_messages(everything: Server, alice: User, staff: User) -> None:
    error = Message("portal_key_refused", {"user": "iam", "server": "gpu17"})
    Push.objects.update(error=error)
    (for_people,) = api(alice).get("/api/v1/pushes").json()["results"]
    (for_staff,) = api(staff).get("/api/v1/pushes").json()["results"]
    assert for_people["error"]["reason"] == for_staff["error"]["reason"] == "portal_key_refused"
    assert "deploy_server gpu17" in for_staff["error"]["text"] and "deploy_server" not in for_people["error"]["text"]
