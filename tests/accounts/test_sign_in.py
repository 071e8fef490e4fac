import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from accounts.models import User
from accounts.services import people
from tests.accounts.conftest import free_port, password_of
from tests.lab.directory import Directory

pytestmark = pytest.mark.django_db


def sign_in(client: Client, name: str = "alice", password: str = "", next_: str = "") -> tuple[int, str, str]:
    fields = {"username": name, "password": password or password_of("alice"), "next": next_}
    answer = client.post("/login/", fields)
    return answer.status_code, answer.headers.get("Location", ""), answer.content.decode()


def test_the_right_password_opens_my_page(directory: Directory, client: Client) -> None:
    assert sign_in(client)[:2] == (302, "/me/")
    assert client.session["_auth_user_id"] == str(User.objects.get(username="alice").pk)


def test_a3_capitals_are_the_same_person(directory: Directory, client: Client) -> None:
    sign_in(client)
    assert sign_in(Client(), "ALICE")[0] == 302
    assert User.objects.count() == 1


def test_after_signing_in_the_requested_page_opens(directory: Directory, client: Client) -> None:
    assert sign_in(client, next_="/log/push-keys")[1] == "/log/push-keys"
    assert sign_in(Client(), next_="https://evil.example/")[1] == "/me/"


def test_a7_unknown_and_known_names_are_answered_alike(directory: Directory, client: Client) -> None:
    def page(name: str) -> str:
        answer = client.post("/login/", {"username": name, "password": "wrong"})
        text = answer.content.decode().replace(str(answer.context["csrf_token"]), "TOKEN")
        return f"{answer.status_code} {text}".replace(name, "NAME")

    assert page("alice") == page("nobody-here") == page("LAB\\alice".replace("\\", "-")) == page("a.b")
    assert not User.objects.exists()


def test_a2_a_star_is_not_a_name(directory: Directory, client: Client) -> None:
    for name in ("*", ")(uid=*", "uid=alice", "DOMAIN\\alice"):
        status, _, page = sign_in(client, name)
        assert status == 200 and "Wrong user name or password" in page


def test_a5_directory_unavailable_is_reported(directory: Directory, client: Client, settings: Settings) -> None:
    settings.LDAP_URL = f"ldap://127.0.0.1:{free_port()}"
    status, _, page = sign_in(client)
    assert status == 503 and "directory unavailable" in page
    assert "Wrong user name or password" not in page


def test_a_locked_out_person_is_denied_at_the_next_request(directory: Directory, client: Client) -> None:
    sign_in(client)
    assert client.get("/me/keys/add").status_code == 200
    people.set_active(actor="warden", user=User.objects.get(username="alice"), active=False)
    answer = client.get("/me/keys/add")
    assert answer.status_code == 302 and answer["Location"].startswith("/login/")


def test_staff_of_the_directory_may_open_the_admin(directory: Directory, client: Client) -> None:
    directory.add_staff("alice")
    sign_in(client)
    assert client.get("/admin/").status_code == 200


def test_others_may_not_open_the_admin(directory: Directory, client: Client) -> None:
    assert client.get("/admin/")["Location"] == "/admin/login/?next=/admin/"
    assert client.get("/admin/login/?next=/admin/")["Location"] == "/login/?next=/admin/"
    sign_in(client)
    answer = client.get("/admin/", follow=True)
    assert answer.status_code == 403 and b"Not allowed" in answer.content


def test_signing_out_requires_a_post(directory: Directory, client: Client) -> None:
    sign_in(client)
    assert client.get("/logout/").status_code == 405
    assert client.post("/logout/")["Location"] == "/"
    assert "_auth_user_id" not in client.session


def test_the_page_has_labels_and_hides_the_password(client: Client) -> None:
    page = client.get("/login/").content.decode()
    assert page.count("<label for=") == 2 and 'type="password"' in page
    assert "no-store" in client.get("/login/")["Cache-Control"]
