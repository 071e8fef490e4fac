"""Locks between labhost processes."""

import threading
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


def test_z1_who_waited_while_the_state_moved_takes_the_lock_of_the_new_place(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    taken, release = threading.Event(), threading.Event()

    def wait() -> None:
        with locks.keys(host):
            taken.set()
            release.wait(10)

    with locks.keys(host):
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not taken.wait(0.2)
        (host.paths.state / "locks").rename(host.paths.state / "below")
        (host.paths.state / "locks").mkdir()
    try:
        assert taken.wait(10)
        with pytest.raises(Busy), locks.hold(host, "keys", seconds=0, doing=""):
            pass
    finally:
        release.set()
        waiter.join()
