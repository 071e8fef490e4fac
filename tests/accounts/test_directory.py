import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from accounts import directory as edge
from accounts.directory import DirectoryUnavailable, Person
from tests.accounts.conftest import free_port, password_of, use
from tests.lab.directory import BIND, CONNECTION, SEARCH, Directory, make_certificates


def ask(name: str = "alice", password: str | None = None) -> Person | None:
    return edge.check_password(name, password or password_of(name))


def test_the_right_password_returns_the_person(directory: Directory) -> None:
    person = ask()
    assert person is not None
    assert (person.name, person.full_name, person.is_staff) == ("alice", "Alice Archer", False)
    assert len(person.directory_id) == 36


@pytest.mark.parametrize(("name", "password"), [("alice", "wrong"), ("nobody-here", "wrong")])
def test_a7_a_wrong_password_and_an_unknown_name_cost_the_same(directory: Directory, name: str, password: str) -> None:
    before = [directory.count(mark) for mark in (SEARCH, BIND)]
    assert ask(name, password) is None
    after = [directory.count(mark) for mark in (SEARCH, BIND)]
    # One search; the portal's own bind, and one with the password.
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 2]


def test_members_of_the_staff_group_are_staff(directory: Directory) -> None:
    directory.add_staff("bob")
    bob, alice = ask("bob"), ask("alice")
    assert bob is not None and bob.is_staff is True
    assert alice is not None and alice.is_staff is False


def test_without_a_staff_group_staff_is_unknown(directory: Directory, settings: Settings) -> None:
    settings.LDAP_STAFF_GROUP = ""
    person = ask()
    assert person is not None and person.is_staff is None


def test_a_missing_staff_group_is_a_fault_not_a_wrong_password(directory: Directory, settings: Settings) -> None:
    settings.LDAP_STAFF_GROUP = "cn=nothing,dc=mylab,dc=com"
    with pytest.raises(DirectoryUnavailable) as caught:
        ask()
    assert "staff group" in caught.value.reason


def test_a6_a_disabled_account_is_refused(directory: Directory) -> None:
    directory.disable("alice")
    assert ask() is None


def test_a1_a_blank_password_never_reaches_the_directory(directory: Directory) -> None:
    before = directory.count(CONNECTION)
    with pytest.raises(ValueError, match="blank"):
        edge.check_password("alice", " \t ")
    assert directory.count(CONNECTION) == before


def test_the_entry_must_have_the_name_that_was_typed(directory: Directory, settings: Settings) -> None:
    settings.LDAP_USER_FILTER = "(|(uid=%(user)s)(sn=%(user)s))"
    assert ask("archer", password_of("alice")) is None
    assert ask("alice") is not None


def test_two_entries_with_one_name_return_nobody(directory: Directory, settings: Settings) -> None:
    settings.LDAP_USER_FILTER = "(|(uid=%(user)s)(uid=bob))"
    assert ask() is None


def test_ldaps_works(directory: Directory, settings: Settings) -> None:
    settings.LDAP_URL, settings.LDAP_START_TLS = directory.tls_url, False
    assert ask() is not None


def test_lookup_returns_people_by_directory_id(directory: Directory) -> None:
    found = edge.look_up(["alice", "bob", "nobody-here"])
    assert sorted(person.full_name for person in found.values()) == ["Alice Archer", "Bob Baker"]
    assert all(key == person.directory_id for key, person in found.items())


def test_lookup_uses_batches_below_any_size_limit(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "NAMES_PER_SEARCH", 2)
    before = directory.count(SEARCH)
    assert len(edge.look_up(["alice", "bob", "charlie"])) == 3
    assert directory.count(SEARCH) == before + 2


# A5: what can go wrong with a directory


@pytest.fixture
def mute() -> Iterator[int]:
    """Accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def cut() -> Iterator[int]:
    """Closes every connection at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def unavailable() -> str:
    began = time.monotonic()
    with pytest.raises(DirectoryUnavailable, match="directory unavailable") as caught:
        ask()
    assert time.monotonic() - began < 5
    return caught.value.reason


def test_a5_the_directory_is_down(directory: Directory, settings: Settings) -> None:
    settings.LDAP_URL = f"ldap://127.0.0.1:{free_port()}"
    assert "SERVER_DOWN" in unavailable()
    with pytest.raises(DirectoryUnavailable):
        edge.look_up(["alice"])


def test_a5_the_directory_is_slow(directory: Directory, settings: Settings) -> None:
    settings.LDAP_TIMEOUT = 1
    with directory.frozen():
        unavailable()


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
def test_a5_the_directory_does_not_answer(directory: Directory, settings: Settings, mute: int, scheme: str) -> None:
    settings.LDAP_TIMEOUT = 1
    settings.LDAP_URL, settings.LDAP_START_TLS = f"{scheme}://127.0.0.1:{mute}", scheme == "ldap"
    unavailable()


def test_a5_the_directory_closes_the_connection(directory: Directory, settings: Settings, cut: int) -> None:
    settings.LDAP_URL = f"ldap://127.0.0.1:{cut}"
    unavailable()


def test_a5_the_certificate_is_of_an_unknown_authority(
    directory: Directory, settings: Settings, tmp_path: Path
) -> None:
    make_certificates(tmp_path, ["elsewhere"])
    settings.LDAP_CA_FILE = str(tmp_path / "ca.pem")
    assert "certificate" in unavailable()
    settings.LDAP_URL, settings.LDAP_START_TLS = directory.tls_url, False
    unavailable()


def test_a5_the_certificate_is_for_another_name(settings: Settings, tmp_path: Path) -> None:
    other = Directory(tmp_path, "127.0.0.1", free_port())
    other.start()
    try:
        use(other, settings)
        assert ask() is None
        other.stop()
        make_certificates(tmp_path, ["elsewhere.example"])
        other.start()
        assert "certificate" in unavailable()
    finally:
        other.stop()


def test_a5_a_refused_portal_account_is_a_fault_not_a_wrong_password(directory: Directory, settings: Settings) -> None:
    settings.LDAP_BIND_PASSWORD = "outdated"
    assert "INVALID_CREDENTIALS" in unavailable()
    with pytest.raises(DirectoryUnavailable):
        edge.look_up(["alice"])


def test_a5_a_wrong_base_is_a_fault(directory: Directory, settings: Settings) -> None:
    settings.LDAP_USER_BASE = "ou=nothing,dc=mylab,dc=com"
    unavailable()


def test_a5_many_sign_ins_at_once_wait_no_longer_than_one(directory: Directory, settings: Settings) -> None:
    settings.LDAP_TIMEOUT = 1
    outcomes: list[float] = []

    def one() -> None:
        began = time.monotonic()
        with pytest.raises(DirectoryUnavailable):
            ask()
        outcomes.append(time.monotonic() - began)

    with directory.frozen():
        threads = [threading.Thread(target=one) for _ in range(2 * edge.AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(outcomes) == 2 * edge.AT_ONCE and max(outcomes) < 5
    assert ask() is not None, "the delayed threads have not ended"


def test_x1_a_fault_is_logged_once_without_secrets(
    directory: Directory, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings.LDAP_BIND_PASSWORD = "outdated"
    unavailable()
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == ["accounts.directory"]
    assert "outdated" not in caplog.text and password_of("alice") not in caplog.text


@pytest.mark.parametrize("raw", [bytes(range(16)), b"abcdefghijklmnop", b"\xff" * 16])
def test_the_guid_of_active_directory_is_read_in_its_byte_order(settings: Settings, raw: bytes) -> None:
    settings.LDAP_ID_ATTR = "objectGUID"
    try:
        decoded: str | bytes = raw.decode()  # as the library does
    except UnicodeDecodeError:
        decoded = raw
    assert edge._identity(decoded) == edge._identity(raw)
    if raw == bytes(range(16)):
        assert edge._identity(raw) == "03020100-0504-0706-0809-0a0b0c0d0e0f"
