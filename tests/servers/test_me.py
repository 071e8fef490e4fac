import re
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from knox.models import AuthToken

from accounts.models import AuditEvent, User
from accounts.services import numbers
from accounts.services.keys import add_keys, revoke_keys
from servers.models import Container, Server
from servers.services import tokens
from tests.accounts.keys import fingerprint, line
from tests.servers.conftest import PINNED, signed_in
from tests.servers.pushes import ACCOUNT, fail, push

pytestmark = pytest.mark.django_db


def page(user: User) -> str:
    return signed_in(user).get("/me/").content.decode()


def test_anonymous_visitors_are_asked_to_sign_in(client: Client) -> None:
    assert client.get("/me/")["Location"] == "/login/?next=/me/"


def test_the_page_shows_port_block_keys_and_configuration(server: Server, alice: User) -> None:
    add_keys(actor="alice", user=alice, pasted=line())
    text = page(alice)
    assert str(alice.port.number) in text and str(alice.subuids.start) in text
    assert str(alice.subuids.start + 65535) in text
    assert fingerprint(line()) in unescape(text)
    assert "Host gpu17-manage\n    HostName 172.16.2.17" in text
    assert 'href="/user/alice/.ssh/config" download' in text


def test_without_a_container_the_page_shows_how_to_register(server: Server, alice: User) -> None:
    assert "ssh register@gpu17-manage alice" in page(alice)


def test_with_a_container_the_page_shows_how_to_start_it_and_log_in(server: Server, alice: User) -> None:
    Container.objects.create(server=server, user=alice, state="stopped")
    text = page(alice)
    assert "ssh gpu17-manage</code>" in text and "ssh gpu17</code>" in text and "register@" not in text


def test_each_key_shows_its_state_place_by_place(server: Server, alice: User) -> None:
    other = Server.objects.create(name="gpu18", address="172.16.2.18", host_key=PINNED)
    add_keys(actor="alice", user=alice, pasted=line(1))
    push(server, {"alice": ACCOUNT})
    push(other, {})
    add_keys(actor="alice", user=alice, pasted=line(2))
    push(server, {"alice": ACCOUNT})
    fail(other)
    text = unescape(page(alice))
    assert "live on 2 of 2 servers" in text and "live on 1 of 2 servers" in text
    place = re.search(r'data-label="host account">\s*<span class="good">live</span> <span[^>]*>since', text)
    assert place is not None and "no container there yet" in text
    assert "gpu18: the server cannot be reached (no route to host), since " in text and ", next retry " in text


def test_a_removed_key_is_shown_until_every_server_confirms_it(server: Server, alice: User) -> None:
    add_keys(actor="alice", user=alice, pasted=line(1))
    push(server, {"alice": ACCOUNT})
    revoke_keys(actor="alice", keys=alice.ssh_keys.all())
    fail(server)
    text = unescape(page(alice))
    assert "removed, but still accepted on gpu17" in text and fingerprint(line(1)) in text
    assert "gpu17: still accepted there: the server cannot be reached (no route to host)" in text
    push(server, {"alice": ACCOUNT})
    assert fingerprint(line(1)) not in unescape(page(alice))


def test_staff_see_the_state_of_their_own_keys_too(server: Server, staff: User) -> None:
    numbers.assign(staff)
    push(server)
    assert ">no keys</span>" in page(staff) and ">live</span>" not in page(staff)
    add_keys(actor="warden", user=staff, pasted=line(1))
    assert ">pending</span>" in page(staff)
    push(server, {"warden": ACCOUNT})
    assert ">live</span>" in page(staff)


def test_a_person_with_only_a_removed_key_sees_no_live_key(server: Server, alice: User) -> None:
    gpu18 = Server.objects.create(name="gpu18", address="172.16.2.18", host_key=PINNED)
    add_keys(actor="alice", user=alice, pasted=line(1))
    push(server, {"alice": ACCOUNT})
    push(gpu18, {"alice": ACCOUNT})
    revoke_keys(actor="alice", keys=alice.ssh_keys.all())
    fail(gpu18)
    push(server, {"alice": ACCOUNT})
    text = page(alice)
    assert ">no keys</span>" in text and ">removing</span>" in text and ">live</span>" not in text


def test_the_page_costs_the_same_for_many_servers_and_keys(alice: User, bob: User) -> None:
    def queries(user: User) -> int:
        client = signed_in(user)
        with CaptureQueriesContext(connection) as seen:
            client.get("/me/")
        return len(seen)

    add_keys(actor="alice", user=alice, pasted=line(0))
    push(Server.objects.create(name="gpu99", address="172.16.2.99", host_key=PINNED))
    few = queries(alice)
    for number in range(20):
        push(Server.objects.create(name=f"gpu{number}", address=f"172.16.2.{number}", host_key=PINNED))
    for number in range(1, 9):
        add_keys(actor="alice", user=alice, pasted=line(number))
    assert queries(alice) == few


def test_charlie_sees_nothing_of_alice(server: Server, alice: User, charlie: User) -> None:
    add_keys(actor="alice", user=alice, pasted=line())
    Container.objects.create(server=server, user=alice, state="running", address="10.0.3.160")
    tokens.create(actor="alice", user=alice)
    text = page(charlie)
    for secret in ("alice", "Alice", str(alice.port.number), str(alice.subuids.start), "10.0.3.160", "SHA256:"):
        assert secret not in text


def test_a_local_account_without_numbers_has_a_page_too(server: Server, staff: User) -> None:
    assert "This local account has no SSH port" in page(staff)


def test_a_token_is_shown_once_and_stored_as_a_digest(alice: User) -> None:
    client = signed_in(alice)
    shown = client.post("/me/tokens/add").content.decode()
    token = re.search(r'<pre id="new-token">(\w+)</pre>', shown)
    assert token is not None
    assert token[1] not in client.get("/me/").content.decode()
    assert AuthToken.objects.get().digest != token[1]
    assert client.get("/me/tokens/add").status_code == 405, "GET never changes anything"
    assert AuditEvent.objects.get(verb="token.created").actor == "alice"
    assert token[1] not in str(AuditEvent.objects.values())
    own = Client().get("/api/v1/me", headers={"Authorization": f"Token {token[1]}"})
    assert own.json()["name"] == "alice"


def test_a_removed_token_is_refused(alice: User) -> None:
    token = tokens.create(actor="alice", user=alice)
    client = signed_in(alice)
    assert client.post(f"/me/tokens/{AuthToken.objects.get().token_key}/remove")["Location"] == "/me/"
    assert Client().get("/api/v1/me", headers={"Authorization": f"Token {token}"}).status_code == 401


def test_nobody_can_remove_the_token_of_another_person(alice: User, charlie: User) -> None:
    tokens.create(actor="alice", user=alice)
    answer = signed_in(charlie).post(f"/me/tokens/{AuthToken.objects.get().token_key}/remove")
    assert answer.status_code == 404 and AuthToken.objects.count() == 1


def test_the_number_of_tokens_is_bounded(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_TOKENS", 1)
    client = signed_in(alice)
    client.post("/me/tokens/add")
    assert client.post("/me/tokens/add")["Location"] == "/me/" and AuthToken.objects.count() == 1
