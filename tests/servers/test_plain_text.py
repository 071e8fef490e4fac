import hashlib
import ipaddress
from unittest.mock import patch

import pytest
from django.db import DatabaseError
from django.test import Client
from pytest_django.fixtures import Settings

from accounts.models import Port, Revision, SubuidRange, User
from accounts.services.keys import add_keys, revoke_keys
from servers.models import Server
from tests.accounts.keys import line
from tests.servers.conftest import signed_in

PAGES = ["port", "subuid", "name", ".ssh/authorized_keys", ".ssh/config"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def gpu(server: Server) -> Client:
    """The managed server, which sends its token."""
    Server.objects.filter(pk=server.pk).update(token_digest=hashlib.sha256(b"the-token").hexdigest())
    return Client(REMOTE_ADDR=server.address, headers={"Authorization": "Bearer the-token"})


def test_port_and_subuid_pages_have_one_number_on_one_line(gpu: Client, alice: User) -> None:
    answer = gpu.get("/user/alice/port")
    assert (answer.status_code, answer.content) == (200, f"{alice.port.number}\n".encode())
    assert gpu.get("/user/alice/subuid").content == f"{alice.subuids.start}\n".encode()
    assert answer["Content-Type"] == "text/plain; charset=utf-8" and answer["Cache-Control"] == "no-store"


def test_the_full_name_is_utf_8(gpu: Client, alice: User) -> None:
    User.objects.update(display_name="Älice Ärcher")
    assert gpu.get("/user/alice/name").content == "Älice Ärcher\n".encode()


def test_the_keys_page_has_one_active_key_per_line(gpu: Client, alice: User) -> None:
    added = add_keys(actor="alice", user=alice, pasted=f"{line(1)}\n{line(2)}\n{line(3)}").added
    revoke_keys(actor="alice", keys=added[1:2])
    assert gpu.get("/user/alice/.ssh/authorized_keys").content.decode() == f"{line(1)}\n{line(3)}\n"


def test_a_person_without_keys_has_an_empty_page(gpu: Client, alice: User) -> None:
    answer = gpu.get("/user/alice/.ssh/authorized_keys")
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_ssh_config_names_every_server_in_service(gpu: Client, alice: User) -> None:
    Server.objects.create(name="gpu18", address="172.16.2.18", enabled=False)
    text = gpu.get("/user/alice/.ssh/config").content.decode()
    assert f"Host gpu17\n    HostName 172.16.2.17\n    Port {alice.port.number}\n    User alice\n" in text
    assert "gpu18" not in text


def test_the_users_page_lists_active_people_with_a_port(gpu: Client, alice: User, bob: User, staff: User) -> None:
    User.objects.filter(username="bob").update(is_active=False)
    assert gpu.get("/users").content == b"alice\n"


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["nobody-here", "root", "..", "-rf", "a" * 33, "*", "%00", "alice%0a"])
def test_an_unknown_name_is_a_404_of_one_line(gpu: Client, alice: User, page: str, name: str) -> None:
    answer = gpu.get(f"/user/{name}/{page}")
    assert answer.status_code == 404
    if not answer["Content-Type"].startswith("text/html"):  # `..` is resolved before the request arrives
        assert len(answer.content.splitlines()) == 1 and b"Not found" in answer.content


def test_a3_capitals_are_the_same_person(gpu: Client, alice: User) -> None:
    assert gpu.get("/user/ALICE/port").content == gpu.get("/user/alice/port").content


@pytest.mark.parametrize("page", PAGES)
def test_o1_a_person_who_is_locked_out_is_unknown(gpu: Client, alice: User, page: str) -> None:
    User.objects.update(is_active=False)
    assert gpu.get(f"/user/alice/{page}").status_code == 404


@pytest.mark.parametrize("page", ["port", "subuid", ".ssh/config"])
def test_a_person_without_numbers_is_a_404_and_gets_none_by_reading(gpu: Client, staff: User, page: str) -> None:
    answer = gpu.get(f"/user/warden/{page}")
    assert answer.status_code == 404 and b"first sign-in" in answer.content
    assert not Port.objects.exists() and not SubuidRange.objects.exists() and not Revision.objects.exists()


@pytest.mark.parametrize("page", [*PAGES, "users"])
def test_other_addresses_are_refused_alike_for_known_and_unknown_names(server: Server, alice: User, page: str) -> None:
    paths = ["/users"] if page == "users" else [f"/user/{name}/{page}" for name in ("alice", "nobody-here", "*")]
    answers = [Client(REMOTE_ADDR="192.0.2.1").get(path) for path in paths]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.content for answer in answers}) == 1
    assert len(answers[0].content.splitlines()) == 1


def test_people_can_read_only_their_own_pages(alice: User, bob: User) -> None:
    client = signed_in(alice)
    assert [client.get(f"/user/alice/{page}").status_code for page in PAGES] == [200] * 5
    assert [client.get(f"/user/bob/{page}").status_code for page in PAGES] == [403] * 5
    assert client.get("/users").status_code == 403


def test_staff_can_read_everything(staff: User, alice: User) -> None:
    client = signed_in(staff)
    assert client.get("/user/alice/port").status_code == client.get("/users").status_code == 200


def test_a_disabled_server_is_refused(gpu: Client, alice: User) -> None:
    Server.objects.update(enabled=False)
    assert gpu.get("/user/alice/port").status_code == 403


def test_a_configured_network_may_read(alice: User, settings: Settings) -> None:
    settings.LAB_NETWORKS = [ipaddress.ip_network("10.1.0.0/16")]
    assert Client(REMOTE_ADDR="10.1.2.3").get("/user/alice/port").status_code == 200
    assert Client(REMOTE_ADDR="::ffff:10.1.2.3").get("/user/alice/port").status_code == 200
    assert Client(REMOTE_ADDR="10.2.2.3").get("/user/alice/port").status_code == 403


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer the-token", 200),
        ("bearer the-token", 200),
        ("Bearer other", 403),
        ("Bearer ", 403),
        ("Token the-token", 403),
    ],
)
def test_the_token_of_a_server_works_from_any_address(server: Server, alice: User, header: str, status: int) -> None:
    Server.objects.update(token_digest=hashlib.sha256(b"the-token").hexdigest())
    stranger = Client(REMOTE_ADDR="192.0.2.1")
    assert stranger.get("/user/alice/port", headers={"Authorization": header}).status_code == status


@pytest.mark.parametrize("page", [*PAGES, "limits?server=gpu17", "users"])
def test_n5_a_servers_address_alone_reads_nothing_since_its_containers_have_it(
    gpu: Client, alice: User, settings: Settings, page: str
) -> None:
    path = "/users" if page == "users" else f"/user/alice/{page}"
    container = Client(REMOTE_ADDR="172.16.2.17")
    assert (gpu.get(path).status_code, container.get(path).status_code) == (200, 403)
    settings.PLAIN_TEXT_BY_ADDRESS = True  # while a server sends no token
    assert container.get(path).status_code == 200


def test_n5_during_a_deployment_both_tokens_of_a_server_are_accepted(gpu: Client, alice: User) -> None:
    digest = hashlib.sha256(b"new-token").hexdigest()
    Server.objects.update(next_token_digest=digest)
    new = {"Authorization": "Bearer new-token"}
    assert gpu.get("/user/alice/port").status_code == gpu.get("/user/alice/port", headers=new).status_code == 200


def test_an_empty_token_is_refused(server: Server, alice: User) -> None:
    stranger = Client(REMOTE_ADDR="192.0.2.1")
    assert stranger.get("/user/alice/port", headers={"Authorization": "Bearer"}).status_code == 403


def test_a4_a_forged_forwarded_address_does_not_help(server: Server, alice: User) -> None:
    stranger = Client(REMOTE_ADDR="192.0.2.1")
    forged = {"X-Forwarded-For": server.address}
    assert stranger.get("/user/alice/port", headers=forged).status_code == 403


@pytest.mark.parametrize("page", PAGES)
def test_a_fault_is_a_503_not_an_empty_200(gpu: Client, alice: User, page: str) -> None:
    with patch.object(User.objects, "select_related", side_effect=DatabaseError):
        answer = gpu.get(f"/user/alice/{page}")
    assert answer.status_code == 503 and len(answer.content.splitlines()) == 1


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_only_get_is_allowed(gpu: Client, alice: User, method: str) -> None:
    assert getattr(gpu, method)("/user/alice/port").status_code == 405
