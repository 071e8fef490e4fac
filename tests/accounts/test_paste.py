import logging

import pytest
from django.apps import apps
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

from accounts import sshkeys
from accounts.models import SSHKey, User
from accounts.services import keys
from tests.accounts.conftest import free_port, password_of
from tests.accounts.keys import converted, generated, line, private
from tests.lab.directory import CONNECTION, Directory

pytestmark = pytest.mark.django_db


def paste(client: Client, pasted: str, password: str = "", name: str = "alice", path: str = "/") -> str:
    """The page after the form: "" if it redirected to the push log."""
    fields = {"username": name, "keys": pasted, "password": password or password_of("alice")}
    answer = client.post(path, fields)
    if answer.status_code == 302:
        assert answer["Location"] == reverse("push-log")
        return ""
    return answer.content.decode()


@pytest.mark.parametrize("path", ["/", "/manage/ssh-key/alice", "/manage/ssh-key/ALICE"])
def test_a_key_is_saved_and_the_push_log_follows(directory: Directory, client: Client, path: str) -> None:
    assert paste(client, line(), path=path) == ""
    key = SSHKey.objects.get()
    assert (key.user.username, key.public_key.line) == ("alice", line())
    assert client.session["pasted_as"] == "alice"
    assert "_auth_user_id" not in client.session, "pasting a key must not sign in"


def test_messages_list_new_and_known_keys(directory: Directory, client: Client) -> None:
    paste(client, line())
    client.get("/")  # shows the first message
    fields = {"username": "alice", "keys": f"{line()}\n{line(1)}", "password": password_of("alice")}
    answer = client.post("/", fields)
    words = sorted(str(message).split()[0] for message in get_messages(answer.wsgi_request))
    assert words == ["Key", "You"]


def test_a_wrong_password_saves_nothing_and_leaves_the_paste_in_the_form(directory: Directory, client: Client) -> None:
    page = paste(client, line(), "wrong")
    assert "Wrong user name or password" in page and line().split()[1].replace("+", "&#x2B;") in page.replace(
        "+", "&#x2B;"
    )
    assert "wrong" not in page.replace("Wrong", "")
    assert not User.objects.exists() and "pasted_as" not in client.session


@pytest.mark.parametrize("path", ["/manage/ssh-key/bob", "/manage/ssh-key/charlie"])
def test_the_user_name_in_the_url_decides(directory: Directory, client: Client, path: str) -> None:
    assert "Wrong user name or password" in paste(client, line(), path=path)
    assert not SSHKey.objects.exists()


def test_a7_unknown_and_known_names_look_alike(directory: Directory, client: Client) -> None:
    def page(name: str, **fields: str) -> str:
        path = f"/manage/ssh-key/{name}"
        answer = client.post(path, {"keys": line(), **fields}) if fields else client.get(path)
        text = answer.content.decode().replace(name, "NAME")
        return text.replace(str(answer.context["csrf_token"]), "TOKEN")

    assert page("alice") == page("nobody-here")
    assert page("bob", password="wrong") == page("nobody-there", password="wrong")


def test_opening_the_page_changes_nothing(directory: Directory, client: Client) -> None:
    for path in ("/", "/manage/ssh-key/alice", "/login/"):
        assert client.get(path).status_code == 200
    assert not User.objects.exists() and not client.session.keys()


@pytest.mark.parametrize("name", ["root", "a.b", "9lives", "alice)(uid=*", "a" * 33])
def test_a_url_with_an_invalid_name_is_not_found(client: Client, name: str) -> None:
    assert client.get(f"/manage/ssh-key/{name}").status_code == 404


def test_a1_a_missing_password_is_reported_at_the_field(directory: Directory, client: Client) -> None:
    before = directory.count(CONNECTION)
    for password in (" ", "\t"):
        assert "Enter your password" in paste(client, line(), password)
    assert "This field is required" in client.post("/", {"username": "alice", "keys": line()}).content.decode()
    assert directory.count(CONNECTION) == before


def test_a_bad_paste_never_reaches_the_directory(directory: Directory, client: Client) -> None:
    before = directory.count(CONNECTION)
    assert "Line 1: options before the key" in paste(client, f'command="id" {line()}').replace("&#x27;", "'")
    assert directory.count(CONNECTION) == before


def dump() -> str:
    """All contents of the database."""
    return "\n".join(str(list(model._base_manager.values_list())) for model in apps.get_models())


@pytest.mark.parametrize("path", ["/", "/manage/ssh-key/alice"])
def test_k6_a_private_key_is_refused_and_never_stored_logged_or_shown(
    directory: Directory, client: Client, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level(logging.DEBUG)
    page = paste(client, private(), path=path)
    assert "PRIVATE key" in page
    for part in private().splitlines()[1:-1]:
        assert part not in page and part not in caplog.text and part not in dump()


def test_k7_the_page_shows_the_command_that_converts_the_key(directory: Directory, client: Client) -> None:
    page = paste(client, converted(generated("rsa", 3072)[0], "RFC4716"))
    assert "ssh-keygen -i -f FILE" in page


def test_k9_a_megabyte_is_refused_fast(directory: Directory, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshkeys, "parse_line", lambda _: pytest.fail("it was parsed"))
    assert "too long" in paste(client, "ssh-ed25519 " + "A" * 1_000_000)


def test_k10_the_key_of_another_person_is_refused(directory: Directory, client: Client, bob: User) -> None:
    keys.add_keys(actor="bob", user=bob, pasted=line())
    page = paste(client, line())
    assert "already in use by another account" in page and "bob" not in page


def test_a5_directory_unavailable_is_reported(directory: Directory, client: Client, settings: Settings) -> None:
    settings.LDAP_URL = f"ldap://127.0.0.1:{free_port()}"
    fields = {"username": "alice", "keys": line(), "password": password_of("alice")}
    for path in ("/", "/manage/ssh-key/alice"):
        answer = client.post(path, fields)
        assert answer.status_code == 503
        assert "directory unavailable" in answer.content.decode()
    assert not User.objects.exists()
    assert client.get("/").status_code == 200


def test_the_session_id_changes(directory: Directory, client: Client) -> None:
    """Somebody who planted the cookie must not be able to watch the push."""
    session = client.session
    session["planted"] = True
    session.save()
    client.cookies["sessionid"] = str(session.session_key)
    paste(client, line())
    assert client.cookies["sessionid"].value != session.session_key


def test_csrf_is_checked(directory: Directory) -> None:
    strict = Client(enforce_csrf_checks=True)
    fields = {"username": "alice", "keys": line(), "password": password_of("alice")}
    for path in ("/", "/login/", "/logout/", "/manage/ssh-key/alice"):
        answer = strict.post(path, fields)
        assert answer.status_code == 403 and b"Please try again" in answer.content
    assert not User.objects.exists()


@pytest.mark.parametrize("method", ["put", "delete", "patch"])
def test_other_methods_are_refused(client: Client, method: str) -> None:
    assert getattr(client, method)("/").status_code == 405
