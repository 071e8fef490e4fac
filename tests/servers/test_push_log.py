from datetime import timedelta
from html import unescape

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import User
from accounts.services.keys import add_keys, current_revision
from servers.models import Server, Sync
from tests.accounts.keys import line
from tests.servers.conftest import signed_in

pytestmark = pytest.mark.django_db
ROW = {"host": "written", "container": "absent", "error": ""}


def page(client: Client) -> str:
    answer = client.get("/log/push-keys")
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def pushed(server: Server, results: dict[str, dict[str, str]], **fields: object) -> Sync:
    """As after a push of the current revision that ended now."""
    now, revision = timezone.now(), current_revision()
    done = {"applied_revision": revision, "attempted_revision": revision, "applied_digest": "d" * 64}
    Server.objects.filter(pk=server.pk).update(attempted_at=now, **done | fields)
    state = "partial" if any(row["error"] for row in results.values()) else "succeeded"
    return Sync.objects.create(server=server, state=state, results=results, finished_at=now, written=len(results))


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


def test_when_all_is_live_it_stops_asking(pasted: Client, server: Server) -> None:
    pushed(server, {"alice": ROW})
    text = page(pasted)
    assert "live" in text and "host written, container absent" in text and "hx-trigger" not in text


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
    failed = {"host": "failed", "container": "absent", "error": "the home is missing"}
    pushed(server, {"alice": ROW, "bob": failed}, last_error="gpu17: one person was not served.")
    text = page(pasted)
    assert "live" in text and "bob" not in text and "the home is missing" not in text
    assert "the home is missing" in page(signed_in(bob))


def test_charlie_sees_nothing_of_alices(pasted: Client, server: Server, charlie: User) -> None:
    pushed(server, {"alice": ROW})
    text = page(signed_in(charlie))
    assert "alice" not in text and "no account of yours" in text


def test_staff_see_everybody(pasted: Client, server: Server, staff: User) -> None:
    pushed(server, {"alice": ROW, "quiet": {"host": "unchanged", "container": "unchanged", "error": ""}})
    text = page(signed_in(staff))
    assert "alice: host written" in text and "2 written" in text and "quiet" not in text


def test_pasting_as_staff_without_signing_in_shows_own_rows_only(pasted: Client, server: Server) -> None:
    User.objects.filter(username="alice").update(is_staff=True, is_superuser=True)
    pushed(server, {"alice": ROW, "bob": ROW})
    assert "bob" not in page(pasted)


def test_o1_a_locked_out_person_sees_nothing_any_more(pasted: Client, server: Server) -> None:
    User.objects.update(is_active=False)
    assert pasted.get("/log/push-keys").status_code == 302


def test_a_name_with_two_underscores_is_only_a_name(server: Server) -> None:
    user = User.objects.create_user("a__b", directory_id="x")
    pushed(server, {"a__b": ROW})
    assert "host written" in page(signed_in(user))


def test_without_servers_it_says_so(pasted: Client) -> None:
    assert "no server here yet" in page(pasted)
