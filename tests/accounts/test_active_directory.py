"""Active Directory, as Samba serves it: sign-in, nested staff groups, disabled accounts, full names."""

import uuid
from collections.abc import Iterator

import pytest
from pytest_django.fixtures import Settings

from accounts import directory as edge
from accounts.directory import DirectoryUnavailable
from tests.accounts.samba import ADDRESS, BASE, IAM, SAMBA, STAFF_GROUP, ActiveDirectory

pytestmark = [pytest.mark.root, pytest.mark.slow]
PASSWORD = "Correct-horse-7"


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ActiveDirectory]:
    if SAMBA is None:
        pytest.skip("samba is not installed")
    domain = ActiveDirectory(tmp_path_factory.mktemp("samba"))
    try:
        domain.start()
        for name, full_name in {"alice": "Alice Archer", "bob": "Bob Baker", "charlie": "Charlie Chase"}.items():
            domain.add_user(name, full_name, PASSWORD)
        domain.tool("group", "addmembers", "lab-professors", "bob")
        yield domain
    finally:
        domain.stop()


@pytest.fixture(autouse=True)
def _use(domain: ActiveDirectory, settings: Settings) -> None:
    """The settings for LDAP_KIND=ad."""
    settings.LDAP_KIND = "ad"
    settings.LDAP_URL = f"ldap://{ADDRESS}"
    settings.LDAP_START_TLS = True
    settings.LDAP_CA_FILE = str(domain.folder / "ca.pem")
    settings.LDAP_BIND_DN = f"{IAM}@ad.lab.test"
    settings.LDAP_BIND_PASSWORD = domain.iam_password
    settings.LDAP_USER_BASE = BASE  # the root of the domain, where answers contain referrals too
    settings.LDAP_LOGIN_ATTR = "sAMAccountName"
    settings.LDAP_USER_FILTER = "(sAMAccountName=%(user)s)"
    settings.LDAP_NAME_ATTR = "displayName"
    settings.LDAP_ID_ATTR = "objectGUID"
    settings.LDAP_STAFF_GROUP = STAFF_GROUP


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
def test_the_right_password_returns_the_person(settings: Settings, scheme: str) -> None:
    settings.LDAP_URL, settings.LDAP_START_TLS = f"{scheme}://{ADDRESS}", scheme == "ldap"
    person = edge.check_password("alice", PASSWORD)
    assert person is not None
    assert (person.name, person.full_name, person.is_staff) == ("alice", "Alice Archer", False)
    assert str(uuid.UUID(person.directory_id)) == person.directory_id


@pytest.mark.parametrize(("name", "password"), [("alice", "wrong"), ("nobody-here", PASSWORD)])
def test_a7_a_wrong_password_and_an_unknown_name_return_nobody(name: str, password: str) -> None:
    assert edge.check_password(name, password) is None


def test_a_member_of_a_group_in_the_staff_group_is_staff() -> None:
    person = edge.check_password("bob", PASSWORD)
    assert person is not None and person.is_staff is True


def test_a6_a_disabled_account_is_refused_and_works_again_when_enabled(domain: ActiveDirectory) -> None:
    domain.tool("user", "disable", "charlie")
    assert edge.check_password("charlie", PASSWORD) is None
    domain.tool("user", "enable", "charlie")
    assert edge.check_password("charlie", PASSWORD) is not None


def test_full_names_are_read_with_the_portals_account() -> None:
    found = {person.name: person for person in edge.look_up(["alice", "bob", "nobody-here"]).values()}
    assert {name: person.full_name for name, person in found.items()} == {"alice": "Alice Archer", "bob": "Bob Baker"}
    alice = edge.check_password("alice", PASSWORD)
    assert alice is not None and alice.directory_id == found["alice"].directory_id


def test_a5_a_plain_connection_is_a_fault_not_a_wrong_password(settings: Settings) -> None:
    """Active Directory refuses simple binds without TLS (strongerAuthRequired)."""
    settings.LDAP_START_TLS = False
    with pytest.raises(DirectoryUnavailable):
        edge.check_password("alice", PASSWORD)
