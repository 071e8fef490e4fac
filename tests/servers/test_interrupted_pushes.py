"""Y3: a real worker is killed at random moments while people change their keys, and the hosts lose nothing."""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from django.db import connection, connections
from django.utils import timezone

from accounts.models import User
from accounts.services import keys
from servers.models import Push, Server, ServerState
from tests.servers.conftest import make_server
from tests.servers.farm import ADDRESSES, Farm
from tests.servers.keyfile import Watcher, expected, new_key
from tests.servers.real_worker import RealWorker, within

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

HOSTS = 3
# What is killed how often: the whole group, as in a crash, or one of its processes, as by the kernel's OOM killer.
KILLS = Counter(cluster=36, main=4, sentinel=4, pool=4, watchdog=2)
FEWER = Counter(cluster=6, sentinel=1, pool=2, watchdog=1)  # the second time, on PostgreSQL
FIRST_PUSH, LONGEST = 6.0, 0.5  # seconds in which a new worker can begin a push, before the kill at a random moment


class Changes:
    """Add and remove keys all the time, as in a busy lab; `states` are all files that were correct at some time."""

    def __init__(self, people: list[User]) -> None:
        self._people, self._is_over = people, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.states, self.count = {""}, 0
        self._fault: BaseException | None = None

    def _run(self) -> None:
        chance = random.Random(1)
        try:
            while not self._is_over.wait(chance.uniform(0, 0.15)):
                self._change(chance)
        except BaseException as error:
            self._fault = error
        finally:
            connections.close_all()

    def _change(self, chance: random.Random) -> None:
        user = chance.choice(self._people)
        active = list(user.ssh_keys.active())
        if len(active) > 4:
            keys.revoke_key(actor=user.username, key=chance.choice(active))
        else:
            new_key(user)
        self.states.add(expected())
        self.count += 1

    def __enter__(self) -> "Changes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        assert self._fault is None


def kill(worker: RealWorker, victim: str, chance: random.Random) -> None:
    with contextlib.suppress(ProcessLookupError, ValueError, IndexError):  # it is being replaced
        if victim == "cluster":
            os.killpg(worker.main, signal.SIGKILL)
        elif victim == "watchdog":
            worker.kill(worker.process.pid)
            worker.process.wait(5)
        else:
            pids = {"main": lambda: [worker.main], "sentinel": lambda: [worker.sentinel], "pool": worker.pool}[victim]()
            worker.kill(chance.choice(pids))


def _wait_for_a_push() -> None:
    end, begun = time.monotonic() + FIRST_PUSH, Push.objects.filter(started_at__gt=timezone.now())
    while time.monotonic() < end and not begun.exists():
        time.sleep(0.02)


def keep_up(worker: RealWorker) -> None:
    """As systemd does, also when the worker gave up because it started too slowly on a busy machine."""
    if worker.process.poll() is not None:
        worker.start()


def is_up_to_date(farm: Farm, worker: RealWorker) -> bool:
    keep_up(worker)
    if ServerState.objects.exclude(applied_revision=keys.current_revision()).exists():
        return False
    return all(farm.register_file(address) == expected() for address in ADDRESSES[:HOSTS])


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.long)])
def test_y3_the_worker_is_killed_at_50_random_moments_and_nothing_is_lost(
    farm: Farm, tmp_path: Path, alice: User, bob: User, charlie: User, capsys: pytest.CaptureFixture[str], times: int
) -> None:
    for number in range(HOSTS):
        make_server(farm, number)
    chance = random.Random(50)
    victims = times * list((KILLS if connection.vendor == "sqlite" else FEWER).elements())
    chance.shuffle(victims)
    file = farm.folder / ADDRESSES[0] / "home/register/.ssh/authorized_keys"
    with RealWorker(farm, tmp_path, silence=5, grace=15) as worker, Watcher(file) as watcher:
        worker.wait_until_ready()
        with Changes([alice, bob, charlie]) as changes:
            for victim in victims:
                _wait_for_a_push()
                time.sleep(chance.uniform(0, LONGEST))
                kill(worker, victim, chance)
                if worker.process.poll() is not None:
                    worker.start()  # as systemd does
        try:
            seconds = within(60, lambda: is_up_to_date(farm, worker), "the current keys")
        except AssertionError as error:
            error.add_note(f"{list(Server.objects.values())}\n{worker.log()[-3000:]}")
            raise
        assert not Push.objects.filter(state="running").exists()
    with capsys.disabled():
        pushes = Counter(Push.objects.values_list("state", flat=True))
        print(f"\n{len(victims)} kills, {changes.count} changes, pushes {dict(pushes)}, all live after {seconds:.1f} s")
    assert pushes["failed"] > len(victims) / times / 10, "hardly any kill interrupted a push"  # old pushes are pruned
    assert set(watcher.seen) <= changes.states, "a file that was never correct"
    done = Counter(Push.objects.filter(state="succeeded").values_list("server", "revision"))
    assert max(done.values()) == 1, "a revision was applied twice"
