import pytest
from django.test import Client, RequestFactory
from pytest_django.fixtures import Settings

from accounts.models import User
from lab_iam.network import client_address


@pytest.mark.django_db
def test_every_page_has_the_security_headers(client: Client) -> None:
    headers = client.get("/").headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


@pytest.mark.django_db
def test_pages_load_nothing_external_and_have_no_inline_code(client: Client) -> None:
    for path in ("/", "/login/", "/nothing-here"):
        page = client.get(path).content.decode()
        assert "http://" not in page and "https://" not in page
        assert "<style" not in page and " style=" not in page and "<script>" not in page


@pytest.mark.parametrize("path", ["lab_iam/app.css", "lab_iam/favicon.svg", "django_htmx/htmx-2.min.js"])
def test_static_files_are_served_without_another_web_server(client: Client, path: str) -> None:
    answer = client.get(f"/static/{path}")
    assert answer.status_code == 200
    assert b"".join(answer).strip()


@pytest.mark.django_db
def test_an_unknown_url_has_its_own_page(client: Client) -> None:
    answer = client.get("/nothing-here")
    assert answer.status_code == 404 and b"There is no page at this address" in answer.content


@pytest.mark.django_db
def test_an_internal_error_shows_no_internals(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("secret internals")

    monkeypatch.setattr("accounts.views.PasteForm", broken)
    client.raise_request_exception = False
    answer = client.get("/")
    assert answer.status_code == 500
    assert b"Something went wrong" in answer.content and b"secret internals" not in answer.content


def test_a_wrong_host_is_refused(client: Client) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_navigation_for_anonymous_visitors_people_and_staff(client: Client, alice: User, staff: User) -> None:
    def links() -> str:
        page = client.get("/").content.decode()
        return page[page.index("<nav") : page.index("</nav>")]

    assert "Sign in" in links() and "My page" not in links() and "Admin" not in links()
    client.force_login(alice, backend="accounts.backends.DirectoryBackend")
    assert "My page" in links() and "Sign out alice" in links() and "Admin" not in links()
    client.force_login(staff, backend="accounts.backends.DirectoryBackend")
    assert "Admin" in links()


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, "1.1.1.1", "9.9.9.9"),
        (1, "1.1.1.1", "1.1.1.1"),
        (1, "6.6.6.6, 1.1.1.1", "1.1.1.1"),
        (2, "6.6.6.6, 1.1.1.1, 2.2.2.2", "1.1.1.1"),
        (2, "1.1.1.1", "9.9.9.9"),
        (1, "", "9.9.9.9"),
        (1, "not-an-address", "9.9.9.9"),
        (1, "2001:db8::1", "2001:db8::1"),
    ],
)
def test_the_real_address_behind_proxies(settings: Settings, proxies: int, forwarded: str, expected: str) -> None:
    settings.TRUSTED_PROXIES = proxies
    request = RequestFactory().get("/", REMOTE_ADDR="9.9.9.9", HTTP_X_FORWARDED_FOR=forwarded)
    assert client_address(request) == expected
