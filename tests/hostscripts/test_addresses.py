"""Case F2: addresses of containers."""

from pathlib import Path

import pytest
from labhost.errors import LabhostError
from labhost.host.user_state import User
from labhost.network import addresses

from tests.hostscripts import hosts


def test_f2_an_address_is_never_shared(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    people = [User(f"u{number}") for number in range(30)]
    for person in people:
        person.address = addresses.address_for(host, person, [other for other in people if other is not person])
    assert len({person.address for person in people}) == 30
    assert len({addresses.mac_address(person.address) for person in people}) == 30
    assert people[0].address == "10.0.3.10"


def test_an_address_changes_only_if_it_is_outside_the_network(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    assert addresses.address_for(host, User("a", address="10.0.3.99"), []) == "10.0.3.99"
    assert addresses.address_for(host, User("a", address="10.9.9.9"), []) == "10.0.3.10"


def test_an_address_leased_by_dhcp_is_not_assigned(tmp_path: Path) -> None:
    (tmp_path / "dnsmasq.lxcbr0.leases").write_text("1795479832 00:16:3e:00:00:01 10.0.3.10 other *\n")
    assert addresses.address_for(hosts.make(tmp_path), User("a"), []) == "10.0.3.11"


def test_a_full_network_is_an_error(tmp_path: Path) -> None:
    host = hosts.make(tmp_path, container__network="10.0.3.0/28")
    others = [User(f"u{number}", address=f"10.0.3.{number}") for number in range(16)]
    with pytest.raises(LabhostError, match="no address is free"):
        addresses.address_for(host, User("a"), others)


def test_a_persons_own_lease_does_not_change_the_address(tmp_path: Path) -> None:
    mac = addresses.mac_address("10.0.3.99")
    lines = f"1795479832 {mac} 10.0.3.99 gpu17 *\n1795479832 00:16:3e:aa:bb:cc 10.0.3.98 other *\n"
    (tmp_path / "dnsmasq.lxcbr0.leases").write_text(lines)
    host = hosts.make(tmp_path)
    assert addresses.address_for(host, User("a", address="10.0.3.99"), []) == "10.0.3.99"
    assert addresses.address_for(host, User("a", address="10.0.3.98"), []) == "10.0.3.10"
