from html import unescape

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import SSHKey, User
from accounts.services import keys
from tests.accounts.keys import line, private


@pytest.fixture
def client(client: Client, alice: User) -> Client:
    client.force_login(alice, backend="accounts.backends.DirectoryBackend")
    return client


def add(user: User, number: int = 0) -> SSHKey:
    return keys.add_keys(actor=user.username, user=user, pasted=line(number)).added[0]


def test_adding_a_key(client: Client, alice: User) -> None:
    answer = client.post("/me/keys/add", {"keys": line()})
    assert answer.status_code == 302 and answer["Location"] == reverse("push-log")
    assert alice.ssh_keys.get().public_key.line == line()
    assert client.session["pasted_as"] == "alice"


def test_an_error_is_shown_at_the_field(client: Client) -> None:
    page = unescape(client.post("/me/keys/add", {"keys": "ssh-dss AAAA"}).content.decode())
    assert "Line 1: DSA" in page and 'aria-invalid="true"' in page


def test_k6_a_private_key_is_not_shown_again(client: Client) -> None:
    page = client.post("/me/keys/add", {"keys": private()}).content.decode()
    assert "PRIVATE key" in page
    assert not [part for part in private().splitlines()[1:-1] if part in page]


def test_k10_the_key_of_another_person_is_refused(client: Client, bob: User) -> None:
    add(bob)
    page = client.post("/me/keys/add", {"keys": line()}).content.decode()
    assert "another account" in page and "bob" not in page


def test_removing_a_key_asks_for_confirmation(client: Client, alice: User) -> None:
    key, _ = add(alice), add(alice, 1)
    page = client.get(f"/me/keys/{key.pk}/remove").content.decode()
    assert unescape(page).count(key.fingerprint) == 1 and "last key" not in page
    key.refresh_from_db()
    assert key.is_active
    assert client.post(f"/me/keys/{key.pk}/remove")["Location"] == "/me/"
    key.refresh_from_db()
    assert not key.is_active


def test_removing_the_last_key_warns(client: Client, alice: User) -> None:
    assert "This is your last key" in client.get(f"/me/keys/{add(alice).pk}/remove").content.decode()


def test_a_removed_key_cannot_be_removed_again(client: Client, alice: User) -> None:
    key = add(alice)
    keys.revoke_key(actor="alice", key=key)
    assert client.post(f"/me/keys/{key.pk}/remove").status_code == 404


def test_somebody_elses_key_is_not_found(client: Client, bob: User) -> None:
    key = add(bob)
    assert client.get(f"/me/keys/{key.pk}/remove").status_code == 404
    assert client.post(f"/me/keys/{key.pk}/remove").status_code == 404
    key.refresh_from_db()
    assert key.is_active


def test_anonymous_visitors_are_sent_to_the_sign_in_page(alice: User) -> None:
    key = add(alice)
    for path in ("/me/keys/add", f"/me/keys/{key.pk}/remove"):
        for answer in (Client().get(path), Client().post(path, {"keys": line(1)})):
            assert answer.status_code == 302 and answer["Location"].startswith("/login/")
    assert keys.current_state().users["alice"] == [key.public_key]
