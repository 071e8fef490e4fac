import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from tests.lab.directory import SLAPD, Directory

CAST = {"alice": "Alice Archer", "bob": "Bob Baker", "charlie": "Charlie Chase"}


def password_of(name: str) -> str:
    return f"{name}-s3cret"


def free_port() -> int:
    """A port P of loopback with P + 1 free too."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture(scope="session")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    if SLAPD is None:
        pytest.skip("slapd is not installed")
    directory = Directory(tmp_path_factory.mktemp("slapd"), "127.0.0.1", free_port())
    directory.start()
    try:
        yield directory
    finally:
        directory.stop()


def use(directory: Directory, settings: Settings) -> None:
    """Set the settings as lab_iam/settings.py reads them from the directory's environment variables."""
    values = directory.portal_settings()
    settings.LDAP_URL = values["LDAP_URL"]
    settings.LDAP_START_TLS = True
    settings.LDAP_CA_FILE = values["LDAP_CA_FILE"]
    settings.LDAP_BIND_DN = values["LDAP_BIND_DN"]
    settings.LDAP_BIND_PASSWORD = Path(values["LDAP_BIND_PASSWORD_FILE"]).read_text()
    settings.LDAP_USER_BASE = values["LDAP_USER_BASE"]
    settings.LDAP_STAFF_GROUP = values["LDAP_STAFF_GROUP"]


@pytest.fixture
def directory(slapd: Directory, settings: Settings) -> Directory:
    """The running directory with exactly alice, bob and charlie, and the portal configured to use it."""
    slapd.clear()
    for name, full_name in CAST.items():
        slapd.add_user(name, full_name, password_of(name))
    use(slapd, settings)
    return slapd
