"""Forwarded ports (cases F3 and F4 without sockets; e2e/test_ports.py has them on a server)."""

from pathlib import Path

import pytest
from labhost.errors import Refused
from labhost.host import user_state
from labhost.host.config import Host
from labhost.host.user_state import User
from labhost.network import forwards
from labhost.network.forwards import ForwardedPort

from tests.hostscripts import hosts


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(forwards, "TABLES", ())
    return hosts.make(tmp_path, server__forwards="30000-30009", server__forwards_each="3")


def person(host: Host, name: str) -> User:
    user = User(name, registered=True)
    user_state.save_user(host, user)
    return user


def test_the_first_free_port_is_assigned_and_stays(host: Host) -> None:
    alice, bob = person(host, "alice"), person(host, "bob")
    assert forwards.add(host, alice, 8888, None) == ForwardedPort(8888, 30000)
    assert forwards.add(host, bob, 8888, None) == ForwardedPort(8888, 30001)
    again = user_state.load_user(host, "alice")
    assert again is not None and forwards.list_forwards(host, again) == [ForwardedPort(8888, 30000)]


def test_forwarding_a_port_again_changes_nothing(host: Host) -> None:
    alice = person(host, "alice")
    for server_port in (None, None, 30000):
        assert forwards.add(host, alice, 8888, server_port) == ForwardedPort(8888, 30000)
    assert len(alice.forwards) == 1
    with pytest.raises(Refused, match="port -d 8888"):
        forwards.add(host, alice, 8888, 30005)


def test_f3_the_quota_is_enforced(host: Host) -> None:
    alice = person(host, "alice")
    for container_port in (80, 443, 8080):
        forwards.add(host, alice, container_port, None)
    with pytest.raises(Refused, match="3 of 3"):
        forwards.add(host, alice, 81, None)
    forwards.remove(host, alice, 443)
    forwards.add(host, alice, 81, None)


def test_f3_a_quota_of_0_allows_no_port(tmp_path: Path) -> None:
    host = hosts.make(tmp_path, server__forwards_each="0")
    with pytest.raises(Refused, match="forwards no ports"):
        forwards.add(host, person(host, "alice"), 80, None)


@pytest.mark.parametrize("server_port", [1, 22, 80, 22031, 29999, 30010, 65535])
def test_f3_a_port_outside_the_range_is_refused(host: Host, server_port: int) -> None:
    with pytest.raises(Refused, match="from 30000 to 30009"):
        forwards.add(host, person(host, "alice"), 80, server_port)


def test_ssh_ports_are_never_forwarded_even_if_the_ranges_overlap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwards, "TABLES", ())
    host = hosts.make(tmp_path, server__ports="22000-30001", server__forwards="30000-30002")
    alice = person(host, "alice")
    assert forwards.add(host, alice, 80, None) == ForwardedPort(80, 30002)
    with pytest.raises(Refused):
        forwards.add(host, alice, 81, 30001)


def test_f3_a_port_that_the_server_uses_is_refused(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st tx_queue\n"
        "   0: 0100007F:7530 00000000:0000 0A 00000000:00000000\n"
        "   1: 0100007F:7531 0100007F:1F90 01 00000000:00000000\n"
    )
    six = tmp_path / "tcp6"
    six.write_text("  sl\n   0: 00000000000000000000000000000000:7532 00000000000000000000000000000000:0000 0A 0\n")
    monkeypatch.setattr(forwards, "TABLES", (table, six, tmp_path / "missing"))
    alice = person(host, "alice")
    assert forwards.add(host, alice, 80, None).server_port == 30001  # 30001 is connected, not listening
    assert forwards.add(host, alice, 81, None).server_port == 30003
    with pytest.raises(Refused, match="in use"):
        forwards.add(host, alice, 82, 30000)


def test_a_full_range_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "TABLES", ())
    host = hosts.make(tmp_path, server__forwards="30000-30000")
    forwards.add(host, person(host, "alice"), 80, None)
    with pytest.raises(Refused, match="no port from 30000 to 30000 is free"):
        forwards.add(host, person(host, "bob"), 80, None)


def test_f4_another_persons_port_is_in_use_and_cannot_be_removed(host: Host) -> None:
    alice, bob = person(host, "alice"), person(host, "bob")
    forwards.add(host, alice, 8888, 30004)
    with pytest.raises(Refused, match="in use"):
        forwards.add(host, bob, 80, 30004)
    for number in (8888, 30004):
        with pytest.raises(Refused, match="you have no port"):
            forwards.remove(host, bob, number)
    assert forwards.list_forwards(host, alice) == [ForwardedPort(8888, 30004)]


def test_a_port_is_removed_by_either_number(host: Host) -> None:
    alice = person(host, "alice")
    forwards.add(host, alice, 30001, 30000)
    forwards.add(host, alice, 80, 30001)
    assert forwards.remove(host, alice, 30001) == ForwardedPort(30001, 30000)
    assert forwards.remove(host, alice, 30001) == ForwardedPort(80, 30001)


def test_a_port_that_host_conf_no_longer_allows_is_not_forwarded(host: Host) -> None:
    alice = person(host, "alice")
    alice.forwards = [[80, 30000], [81, 40000]]
    assert forwards.list_forwards(host, alice) == [ForwardedPort(80, 30000)]
