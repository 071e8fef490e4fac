"""Locks between labhost processes."""

from pathlib import Path

import pytest
from labhost.errors import Busy
from labhost.host import locks

from tests.hostscripts import hosts


def test_a_held_lock_is_busy_and_a_released_one_is_free(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    with locks.user(host, "alice", doing="being registered"):
        with (
            pytest.raises(Busy, match=r"another command is running \(alice's container is being changed\)") as caught,
            locks.user(host, "alice", seconds=0),
        ):
            pass
        with locks.user(host, "bob", seconds=0), locks.keys(host), locks.accounts(host):
            pass
    assert (caught.value.reason, caught.value.params["lock"]) == ("lock_held", "user-alice")
    with locks.user(host, "alice", seconds=0):
        pass
