from datetime import timedelta
from html import unescape

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import User
from accounts.services.keys import add_keys, current_revision
from servers.models import Server
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
    """The browser in which Alice has just pasted a key, without signing in."""
    add_keys(actor="alice", user=alice, pasted=line())
    session = client.session
    session["pushed_as"] = "alice"
    session.save()
    return client


def test_strangers_are_asked_to_sign_in(client: Client) -> None:
    assert client.get("/log/push-keys")["Location"].startswith("/login/")


def test_who_has_just_pasted_follows_the_push_each_second(pasted: Client, server: Server) -> None:
    text = page(pasted)
    assert "gpu17" in text and "pushing" in text and 'hx-trigger="every 1s"' in text


def test_the_fragment_is_the_table_only(pasted: Client, server: Server) -> None:
    text = pasted.get("/log/push-keys", headers={"HX-Request": "true"}).content.decode()
    assert text.lstrip().startswith("<section") and "<html" not in text


def test_when_all_is_live_it_says_so_and_stops_asking(pasted: Client, server: Server) -> None:
    push(server, {"alice": ACCOUNT})
    text = page(pasted)
    assert "live on 1 of 1 server" in text and "an account" in text and "hx-trigger" not in text


def test_while_it_runs_it_counts_what_is_live_so_far(pasted: Client, server: Server) -> None:
    other = Server.objects.create(name="gpu18", address="172.16.2.18", host_key=PINNED)
    push(server, {"alice": ACCOUNT})
    text = page(pasted)
    assert "live on 1 of 2 servers</strong> so far" in text and 'hx-trigger="every 1s"' in text
    fail(other)
    Server.objects.update(next_attempt=timezone.now() + timedelta(minutes=4))
    text = page(pasted)
    assert "live on 1 of 2 servers" in text and "so far" not in text and "hx-trigger" not in text
    assert "<li>gpu18: no route to host, since " in text and ", next try " in text


def test_a_server_that_is_down_is_behind_since_then_with_the_reason_and_the_next_try(
    pasted: Client, server: Server
) -> None:
    since = timezone.now() - timedelta(minutes=3)
    Server.objects.update(
        attempted_revision=current_revision(),
        behind_since=since,
        next_attempt=timezone.now() + timedelta(minutes=4),
        last_error="gpu17: no answer from 172.16.2.17 port 22.",
    )
    text = page(pasted)
    assert "behind" in text and f"{since:%H:%M:%S}" in text and "no answer from 172.16.2.17" in text
    assert "next try" in text and "hx-trigger" not in text


def test_y8_her_own_failure_is_shown_and_nobody_elses(pasted: Client, server: Server, bob: User) -> None:
    add_keys(actor="bob", user=bob, pasted=line(2))
    push(server, {"alice": ACCOUNT, "bob": FAILED})
    text = page(pasted)
    assert "live on 1 of 1 server" in text and "bob" not in text and "home_missing" not in text
    assert "live on 0 of 1 server" in page(signed_in(bob)) and "home_missing" in page(signed_in(bob))


def test_charlie_sees_nothing_of_alices(pasted: Client, server: Server, charlie: User) -> None:
    push(server, {"alice": ACCOUNT})
    text = page(signed_in(charlie))
    assert "alice" not in text and "no account of yours" in text and "You have no key" in text


def test_staff_see_everybody(pasted: Client, server: Server, staff: User) -> None:
    push(server, {"alice": ACCOUNT, "quiet": UserResult("unchanged", "unchanged")})
    text = page(signed_in(staff))
    assert "alice: host written" in text and "1 written" in text and "quiet" not in text
    assert "live on 1 of 1 server" in text


def test_pasting_as_staff_without_signing_in_shows_own_rows_only(pasted: Client, server: Server) -> None:
    User.objects.filter(username="alice").update(is_staff=True, is_superuser=True)
    push(server, {"alice": ACCOUNT, "bob": ACCOUNT})
    assert "bob" not in page(pasted)


def test_o1_a_locked_out_person_sees_nothing_any_more(pasted: Client, server: Server) -> None:
    User.objects.update(is_active=False)
    assert pasted.get("/log/push-keys").status_code == 302


def test_a_push_about_others_only_does_not_hide_her_account(pasted: Client, server: Server, bob: User) -> None:
    push(server, {"alice": ACCOUNT})
    add_keys(actor="bob", user=bob, pasted=line(2))
    push(server, {"bob": ACCOUNT}, whole=False)
    assert "an account" in page(pasted) and "live on 1 of 1 server" in page(pasted)


def test_without_servers_it_says_so(pasted: Client) -> None:
    assert "no server here yet" in page(pasted)
