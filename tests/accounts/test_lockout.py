import logging
from html import unescape

import pytest
from axes.models import AccessAttempt
from django.test import Client
from pytest_django.fixtures import Settings

from accounts.lockout import MESSAGE
from accounts.models import User
from tests.accounts.conftest import free_port, password_of
from tests.accounts.keys import line, private
from tests.lab.directory import CONNECTION, Directory

pytestmark = pytest.mark.django_db


def sign_in(name: str, password: str, address: str = "10.9.9.9", **headers: str) -> int:
    fields = {"username": name, "password": password}
    return Client().post("/login/", fields, REMOTE_ADDR=address, **headers).status_code  # type: ignore[arg-type]


def fail(times: int, name: str = "alice", address: str = "10.9.9.9", **headers: str) -> list[int]:
    return [sign_in(name, f"wrong-{number}", address, **headers) for number in range(times)]


def test_a4_ten_wrong_passwords_lock_the_name_at_every_address(directory: Directory) -> None:
    assert fail(10) == [200] * 9 + [429]
    assert sign_in("alice", password_of("alice"), "10.1.1.1") == 429
    assert sign_in("ALICE", password_of("alice"), "10.1.1.1") == 429
    assert sign_in("bob", password_of("bob"), "10.1.1.1") == 302


def test_a4_ten_wrong_passwords_lock_the_address_for_every_name(directory: Directory) -> None:
    for number in range(10):
        fail(1, f"guess{number}")
    assert sign_in("bob", password_of("bob")) == 429
    assert sign_in("bob", password_of("bob"), "10.1.1.1") == 302


def test_a4_a_locked_sign_in_never_reaches_the_directory(directory: Directory) -> None:
    fail(10)
    before = directory.count(CONNECTION)
    fail(3)
    assert directory.count(CONNECTION) == before


def test_a4_a_forged_header_does_not_help(directory: Directory) -> None:
    for number in range(10):
        fail(1, f"guess{number}", HTTP_X_FORWARDED_FOR=f"192.0.2.{number}")
    assert sign_in("bob", password_of("bob"), HTTP_X_FORWARDED_FOR="192.0.2.99") == 429


def test_a4_behind_a_proxy_the_real_address_is_locked(directory: Directory, settings: Settings) -> None:
    settings.TRUSTED_PROXIES = 1
    for number in range(10):
        fail(1, f"guess{number}", "127.0.0.1", HTTP_X_FORWARDED_FOR=f"192.0.2.{number}, 10.7.7.7")
    right = password_of("bob")
    assert sign_in("bob", right, "127.0.0.1", HTTP_X_FORWARDED_FOR="192.0.2.99, 10.7.7.7") == 429
    assert sign_in("bob", right, "127.0.0.1", HTTP_X_FORWARDED_FOR="10.7.7.8") == 302


def test_a4_the_paste_page_is_locked_too(directory: Directory, client: Client) -> None:
    fail(9)
    fields = {"username": "alice", "keys": line(), "password": "wrong"}
    answer = client.post("/", fields)
    assert answer.status_code == 429
    assert MESSAGE in unescape(answer.content.decode())
    fields["password"] = password_of("alice")
    assert client.post("/manage/ssh-key/alice", fields).status_code == 429
    assert not User.objects.exists()


def test_a4_the_lock_ends_by_itself(directory: Directory) -> None:
    fail(10)
    attempts = AccessAttempt.objects.all()
    for attempt in attempts:
        attempt.attempt_time -= attempt.attempt_time - attempt.attempt_time.replace(year=2020)
        attempt.save()
    assert sign_in("alice", password_of("alice")) == 302


def test_more_attempts_do_not_prolong_the_lock(directory: Directory) -> None:
    fail(10)
    before = AccessAttempt.objects.get().attempt_time
    fail(3)
    assert AccessAttempt.objects.get().attempt_time == before


def test_a_success_clears_only_the_failed_attempts_of_that_name(directory: Directory) -> None:
    fail(6, "alice")
    fail(2, "bob")
    assert sign_in("alice", password_of("alice")) == 302
    assert [attempt.username for attempt in AccessAttempt.objects.all()] == ["bob"]
    assert fail(7, "alice") == [200] * 7


def test_a5_an_outage_locks_nobody_out(directory: Directory, settings: Settings) -> None:
    settings.LDAP_URL = f"ldap://127.0.0.1:{free_port()}"
    assert fail(12) == [503] * 12
    assert not AccessAttempt.objects.exists()


def test_local_passwords_are_protected_during_an_outage(directory: Directory, settings: Settings, staff: User) -> None:
    settings.LDAP_URL = f"ldap://127.0.0.1:{free_port()}"
    assert fail(10, "warden")[-1] == 429
    assert sign_in("warden", "a-long-local-password") == 429


def test_x1_the_counters_hold_no_secrets(
    directory: Directory, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client.post("/", {"username": "alice", "keys": line(), "password": "my-typo-password"})
    client.post("/login/", {"username": "My Password In The Wrong Field", "password": "x"})
    client.post("/", {"username": "alice", "keys": private(), "password": "my-typo-password"})
    assert AccessAttempt.objects.count() == 1
    stored = str(AccessAttempt.objects.values())
    for secret in (
        "my-typo-password",
        "Wrong Field",
        "PRIVATE KEY",
        line().split()[1],
        private().splitlines()[2],
    ):
        assert secret not in stored and secret not in caplog.text
