"""`manage.py worker` with a real cluster on a real database, killed in ways that django-q does not survive."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from accounts.models import User
from servers.models import Server
from servers.services.worker import heartbeat
from tests.servers.conftest import give_key, make_server
from tests.servers.farm import ADDRESSES, Farm, is_alive
from tests.servers.real_worker import ROOT, RealWorker, within

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture
def running(farm: Farm, tmp_path: Path) -> Iterator[RealWorker]:
    with RealWorker(farm, tmp_path, silence=5, grace=5) as real:
        real.wait_until_ready()
        within(30, heartbeat.last_seen, "the first heartbeat")
        yield real


def key_arrives(farm: Farm, user: User, number: int, seconds: float = 30) -> None:
    key = give_key(user, number)
    within(seconds, lambda: key.blob in farm.register_file(), "the key")


def test_y3_a_cluster_that_hangs_after_a_pool_process_is_killed_is_replaced(
    farm: Farm, running: RealWorker, alice: User
) -> None:
    make_server(farm)
    key_arrives(farm, alice, 0)
    before = running.group()
    # One of the two waits in the queue and holds its lock: without it, all others hang.
    for pid in running.pool():
        running.kill(pid)
    key_arrives(farm, alice, 1, 40)
    assert not set(before[1:]) & {pid for pid in before[1:] if is_alive(pid)}, "a process of the old cluster is left"
    assert "no heartbeat for 5 s" in running.restarts()[0]


@pytest.mark.parametrize("who", ["main", "sentinel"])
def test_y3_killing_the_main_process_or_the_sentinel_leaves_no_orphan(
    farm: Farm, running: RealWorker, alice: User, who: str
) -> None:
    make_server(farm)
    cluster = running.group()[1:]
    running.kill(getattr(running, who))
    within(10, lambda: not any(map(is_alive, cluster)), "the end of the old cluster")
    key_arrives(farm, alice, 0)
    assert "ended by itself" in running.restarts()[0]


def test_y3_killing_the_watchdog_ends_its_whole_cluster(running: RealWorker) -> None:
    group = running.group()
    assert len(group) >= 7, "watchdog, main, sentinel, pool of 2, monitor, pusher"
    running.kill(running.process.pid)
    running.process.wait(10)
    within(10, lambda: not any(map(is_alive, group)), "the end of the cluster")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_in_time(running: RealWorker, number: signal.Signals) -> None:
    group = running.group()
    running.process.send_signal(number)
    assert running.process.wait(10) == 0
    assert not any(map(is_alive, group)) and running.restarts() == []


def test_a_hanging_cluster_ends_in_time_too(farm: Farm, tmp_path: Path) -> None:
    with RealWorker(farm, tmp_path, silence=60, grace=1) as real:
        real.wait_until_ready()
        within(30, heartbeat.last_seen)
        group = real.group()
        for pid in real.pool():
            real.kill(pid)
        real.process.terminate()
        assert real.process.wait(10) == 0
        assert not any(map(is_alive, group))


def test_a_task_longer_than_the_limit_does_not_count_as_hanging(farm: Farm, running: RealWorker, alice: User) -> None:
    make_server(farm)
    farm.behave(ADDRESSES[0], "mute")
    give_key(alice)
    within(20, farm.commands)
    later = timezone.now() + timedelta(seconds=7)  # more than the allowed silence
    within(30, lambda: (seen := heartbeat.last_seen()) and seen > later, "heartbeats during the task")
    assert running.restarts() == []
    assert Server.objects.get().state.lease_until, "the push still waits for its answer"


def test_a_worker_that_cannot_start_reports_it_and_ends(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "DEBUG": "true", "DATA_DIR": str(tmp_path)}
    environment["BROKER_URL"] = "redis://127.0.0.1:1"
    code = "from servers.services.worker import watchdog; watchdog.PAUSE = 0.01; watchdog.POLL_SECONDS = 0.05"
    program = (
        f"import django; django.setup(); {code}; from django.core.management import call_command as c; c('worker')"
    )
    environment["DJANGO_SETTINGS_MODULE"] = "lab_iam.settings"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "keeps failing to start" in done.stderr.splitlines()[-1]
