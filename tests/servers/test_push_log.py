from datetime import timedelta
from html import unescape

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import User
from accounts.services.keys import add_keys, current_revision
from servers.models import Server, ServerState
from servers.protocol import Message, UserResult
from tests.accounts.keys import line
from tests.servers.conftest import PINNED, signed_in
from tests.servers.pushes import ACCOUNT, fail, push

pytestmark = pytest.mark.django_db
FAILED = UserResult("failed", "absent", Message("home_missing"))


def page(client: Client) -> str:
    answer = client.get("/log/push-keys")
    assert answer.status_code == 200
    return unescape(answer.content.decode())


@pytest.fixture
def pasted(client: Client, alice: User) -> Client:
    """A browser in which Alice has just pasted a key without signing in."""
    add_keys(actor="alice", user=alice, pasted=line())
    session = client.session
    session["pasted_as"] = "alice"
    session.save()
    return client


def test_anonymous_visitors_are_asked_to_sign_in(client: Client) -> None:
    assert client.get("/log/push-keys")["Location"].startswith("/login/")


def test_after_a_paste_the_push_log_updates_each_second(pasted: Client, server: Server) -> None:
    text = page(pasted)
    assert "gpu17" in text and "pushing" in text and 'hx-trigger="every 1s"' in text


def test_the_fragment_is_the_table_only(pasted: Client, server: Server) -> None:
    text = pasted.get("/log/push-keys", headers={"HX-Request": "true"}).content.decode()
    assert text.lstrip().startswith("<section") and "<html" not in text


def test_when_all_keys_are_live_the_page_stops_updating(pasted: Client, server: Server) -> None:
    push(server, {"alice": ACCOUNT})
    text = page(pasted)
    assert "live on 1 of 1 server" in text and "host account" in text and "hx-trigger" not in text


def test_during_a_push_the_page_counts_live_keys(pasted: Client, server: Server) -> None:
    other = Server.objects.create(name="gpu18", address="172.16.2.18", host_key=PINNED)
    push(server, {"alice": ACCOUNT})
    text = page(pasted)
    assert "live on 1 of 2 servers</strong> so far" in text and 'hx-trigger="every 1s"' in text
    fail(other)
    ServerState.objects.update(next_attempt=timezone.now() + timedelta(minutes=4))
    text = page(pasted)
    assert "live on 1 of 2 servers" in text and "so far" not in text and "hx-trigger" not in text
    assert "<li>gpu18: the server cannot be reached (no route to host), since " in text and ", next retry " in text


def test_a_server_that_is_down_is_shown_as_behind_with_reason_and_next_retry(pasted: Client, server: Server) -> None:
    since = timezone.now() - timedelta(minutes=3)
    ServerState.objects.update(
        attempted_revision=current_revision(),
        behind_since=since,
        next_attempt=timezone.now() + timedelta(minutes=4),
        last_error=Message("no_answer", {"address": "172.16.2.17", "port": 22}),
    )
    text = page(pasted)
    assert "pending" in text and f"{since:%H:%M:%S}" in text and "the server does not answer in time" in text
    assert "next retry" in text and "hx-trigger" not in text


def test_y8_people_see_only_their_own_failure(pasted: Client, server: Server, bob: User) -> None:
    add_keys(actor="bob", user=bob, pasted=line(2))
    push(server, {"alice": ACCOUNT, "bob": FAILED})
    text = page(pasted)
    assert "live on 1 of 1 server" in text and "bob" not in text and "the home directory is missing" not in text
    bobs = page(signed_in(bob))
    assert "live on 0 of 1 server" in bobs and ">failed<" in bobs and "the home directory is missing" in bobs


def test_charlie_sees_nothing_of_alice(pasted: Client, server: Server, charlie: User) -> None:
    push(server, {"alice": ACCOUNT})
    text = page(signed_in(charlie))
    assert "alice" not in text and "not registered" in text and "You have no SSH key yet" in text


def test_staff_see_all_people(pasted: Client, server: Server, staff: User) -> None:
    push(server, {"alice": ACCOUNT, "quiet": UserResult("unchanged", "unchanged")})
    text = page(signed_in(staff))
    assert "alice: host written" in text and "1 written" in text and "quiet" not in text
    assert "You have no SSH key" in text and "live on" not in text, "staff also see only the state of their own keys"


def test_pasting_as_staff_without_signing_in_shows_own_rows_only(pasted: Client, server: Server) -> None:
    User.objects.filter(username="alice").update(is_staff=True, is_superuser=True)
    push(server, {"alice": ACCOUNT, "bob": ACCOUNT})
    assert "bob" not in page(pasted)


def test_o1_a_locked_out_person_sees_nothing(pasted: Client, server: Server) -> None:
    User.objects.update(is_active=False)
    assert pasted.get("/log/push-keys").status_code == 302


def test_a_push_about_others_does_not_hide_the_persons_own_account(pasted: Client, server: Server, bob: User) -> None:
    push(server, {"alice": ACCOUNT})
    add_keys(actor="bob", user=bob, pasted=line(2))
    push(server, {"bob": ACCOUNT}, whole=False)
    assert "host account" in page(pasted) and "live on 1 of 1 server" in page(pasted)


def test_without_servers_the_page_explains_it(pasted: Client) -> None:
    assert "There are no servers yet" in page(pasted)
