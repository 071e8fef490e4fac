"""DHCP reservations of containers."""

from pathlib import Path

from labhost.host.user_state import User
from labhost.network import dhcp

from tests.hostscripts import hosts


def test_each_container_has_its_own_reservation_until_it_is_removed(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    alice = User("alice", address="10.0.3.160")
    dhcp.reserve(host, alice)  # the folder does not exist: nothing happens
    host.paths.dhcp_hosts.mkdir()
    dhcp.reserve(host, alice)
    dhcp.reserve(host, User("bob", address="10.0.3.161"))
    assert (host.paths.dhcp_hosts / "alice").read_text() == "00:16:3e:00:03:a0,10.0.3.160\n"
    dhcp.keep_only(host, ["alice"])
    assert [path.name for path in host.paths.dhcp_hosts.iterdir()] == ["alice"]
