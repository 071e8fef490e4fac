"""Guards for all tests, and the people: Alice owns, Bob may see, Charlie must see nothing."""

import ipaddress
import os
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from accounts.models import User
from accounts.services import numbers

# A busy machine may take longer, which is no failure.
hypothesis_settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("patient")

_ALLOWED = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
_ALLOWED += [ipaddress.ip_network(text) for text in os.environ.get("LAB_IAM_TEST_NETWORKS", "").split(",") if text]


def _is_allowed(sock: socket.socket, address: Any) -> bool:
    if sock.family == socket.AF_UNIX:
        return True
    host = str(address[0])
    if host in {"localhost", ""}:
        return True
    try:
        return any(ipaddress.ip_address(host) in network for network in _ALLOWED)
    except ValueError:
        return False  # a name would need a lookup elsewhere


@pytest.fixture(autouse=True)
def _no_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anywhere but this machine (or LAB_IAM_TEST_NETWORKS) fails the test."""
    for name in ("connect", "connect_ex"):
        real = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any, _real: Any = real) -> Any:
            if not _is_allowed(self, address):
                pytest.fail(f"a test tried to reach {address!r}")
            return _real(self, address)

        monkeypatch.setattr(socket.socket, name, guarded)


def _person(name: str, full_name: str) -> User:
    user = User.objects.create_user(name, display_name=full_name, directory_id=f"id-of-{name}")
    numbers.assign(user)
    return user


@pytest.fixture
def alice(db: None) -> User:
    return _person("alice", "Alice Archer")


@pytest.fixture
def bob(db: None) -> User:
    return _person("bob", "Bob Baker")


@pytest.fixture
def charlie(db: None) -> User:
    return _person("charlie", "Charlie Chase")


@pytest.fixture
def staff(db: None) -> User:
    """Break-glass staff: a local account, unknown to the directory."""
    return User.objects.create_superuser("warden", "a-long-local-password")
