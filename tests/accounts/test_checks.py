from pathlib import Path

import pytest
from django.core.checks import run_checks
from pytest_django.fixtures import Settings

from accounts.numbers import SUBUID_COUNT, NumberRange

GOOD = {
    "PORTAL_URL": "https://testserver",
    "SECRET_KEY": "x" * 40,
    "ALLOWED_HOSTS": ["testserver"],
    "LDAP_URL": "ldaps://ldap.mylab.com",
    "LDAP_START_TLS": False,
    "LDAP_USER_BASE": "dc=mylab,dc=com",
    "LDAP_BIND_DN": "cn=iam,dc=mylab,dc=com",
}


@pytest.fixture(autouse=True)
def good(settings: Settings) -> None:
    for name, value in GOOD.items():
        setattr(settings, name, value)


def ids() -> set[str]:
    messages = [message for message in run_checks() if str(message.id).startswith(("accounts.", "lab_iam."))]
    assert all(message.hint for message in messages)
    return {str(message.id) for message in messages}


def test_a_good_configuration_has_no_messages() -> None:
    assert ids() == set()


@pytest.mark.parametrize(
    ("id_", "changed"),
    [
        ("accounts.E001", {"LAB_PORTS": NumberRange(80, 2000)}),
        ("accounts.E001", {"LAB_PORTS": NumberRange(60000, 70000)}),
        ("accounts.W001", {"LAB_PORTS": NumberRange(22000, 40000)}),
        ("accounts.E002", {"LAB_SUBUIDS": NumberRange(1000, 2_000_000, SUBUID_COUNT)}),
        ("accounts.E002", {"LAB_SUBUIDS": NumberRange(2**31, 2**32 - 1, SUBUID_COUNT)}),
        ("accounts.W002", {"LDAP_URL": ""}),
        ("accounts.E003", {"LDAP_USER_BASE": ""}),
        ("accounts.E004", {"LDAP_USER_FILTER": "(uid=%(name)s)"}),
        ("accounts.E004", {"LDAP_USER_FILTER": "uid=%(user)s"}),
        ("accounts.E004", {"LDAP_USER_FILTER": "(uid=alice%)"}),
        ("accounts.E004", {"LDAP_USER_FILTER": "(objectClass=*)"}),
        ("accounts.E005", {"LDAP_CA_FILE": "/nonexistent/ca.pem"}),
        ("accounts.E006", {"LDAP_START_TLS": True}),
        ("accounts.W003", {"LDAP_URL": "ldap://ldap.mylab.com"}),
        ("accounts.W004", {"LDAP_BIND_DN": ""}),
        ("lab_iam.W001", {"SECRET_KEY": "short"}),
        ("lab_iam.W002", {"PORTAL_URL": "http://testserver"}),
        ("lab_iam.W003", {"ALLOWED_HOSTS": ["*"]}),
        ("lab_iam.E001", {"ALLOWED_HOSTS": ["localhost"]}),
    ],
)
def test_each_mistake_has_its_id(settings: Settings, id_: str, changed: dict[str, object]) -> None:
    for name, value in changed.items():
        setattr(settings, name, value)
    assert ids() == {id_}


def test_accounts_e005_an_existing_file_is_accepted(settings: Settings, tmp_path: Path) -> None:
    settings.LDAP_CA_FILE = str(tmp_path / "ca.pem")
    (tmp_path / "ca.pem").touch()
    assert ids() == set()
