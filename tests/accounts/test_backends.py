import pytest
from django.test import RequestFactory
from django.utils.module_loading import import_string
from pytest_django.fixtures import Settings

from accounts import backends
from accounts.directory import DirectoryUnavailable
from accounts.models import User
from accounts.services import people
from tests.accounts.conftest import free_port, password_of
from tests.lab.directory import CONNECTION, Directory

pytestmark = pytest.mark.django_db


def ask(name: str, password: str) -> User | None:
    return backends.check_password(RequestFactory().post("/login/"), name, password)


@pytest.mark.parametrize("password", ["", " ", "\t\n ", "\u00a0"])
def test_a1_an_empty_or_blank_password_never_reaches_the_directory(directory: Directory, password: str) -> None:
    before = directory.count(CONNECTION)
    assert ask("alice", password) is None
    assert directory.count(CONNECTION) == before


@pytest.mark.parametrize(
    "name",
    [
        "*",
        "a*",
        ")(uid=*",
        "alice)(cn=*",
        "uid=alice,ou=people,dc=mylab,dc=com",
        "LAB\\alice",
        "alice@mylab.com",
        "alice\0",
        " alice",
        "alice ",
        "",
        "root",
        "a" * 1000,
    ],
)
def test_a2_an_invalid_name_never_reaches_the_directory(directory: Directory, name: str) -> None:
    before = directory.count(CONNECTION)
    assert ask(name, password_of("alice")) is None
    assert directory.count(CONNECTION) == before
    assert not User.objects.exists()


def test_a3_capitals_are_the_same_person(directory: Directory) -> None:
    first, second = ask("ALICE", password_of("alice")), ask("alice", password_of("alice"))
    assert first is not None and first == second and first.username == "alice"


def test_a7_a_failed_sign_in_creates_no_row(directory: Directory) -> None:
    assert ask("alice", "wrong") is None
    assert ask("nobody-here", "wrong") is None
    assert not User.objects.exists()


def test_the_first_sign_in_assigns_a_port_and_subuids(directory: Directory) -> None:
    user = ask("alice", password_of("alice"))
    assert user is not None and user.port.number == 22000


def test_a_locked_out_person_is_refused_although_the_password_is_right(directory: Directory) -> None:
    user = ask("alice", password_of("alice"))
    assert user is not None
    people.set_active(actor="warden", user=user, active=False)
    assert ask("alice", password_of("alice")) is None


def test_o3_a_new_person_with_a_used_name_reads_what_to_do(directory: Directory) -> None:
    assert ask("alice", password_of("alice")) is not None
    directory.remove_user("alice")
    directory.add_user("alice", "Alice Another", "another")
    with pytest.raises(people.PersonRefused, match="Ask the lab's staff"):
        ask("alice", "another")


def test_a5_a_directory_that_is_down_is_not_a_wrong_password(directory: Directory, settings: Settings) -> None:
    settings.LDAP_URL = f"ldap://127.0.0.1:{free_port()}"
    with pytest.raises(DirectoryUnavailable, match="directory unavailable"):
        ask("alice", password_of("alice"))
    assert not User.objects.exists()


def test_a5_a_local_account_can_sign_in_while_the_directory_is_down(
    directory: Directory, settings: Settings, staff: User
) -> None:
    settings.LDAP_URL = f"ldap://127.0.0.1:{free_port()}"
    assert ask("warden", "a-long-local-password") == staff
    with pytest.raises(DirectoryUnavailable):
        ask("warden", "wrong")


def test_a_local_account_works_alongside_the_directory(directory: Directory, staff: User) -> None:
    assert ask("warden", "a-long-local-password") == staff
    assert ask("warden", "wrong") is None


def test_the_order_of_the_backends(settings: Settings) -> None:
    """The lockout must come first, or it would stop nobody."""
    names = [import_string(path).__name__ for path in settings.AUTHENTICATION_BACKENDS]
    assert names == ["AxesStandaloneBackend", "DirectoryBackend", "ModelBackend"]
