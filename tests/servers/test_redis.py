"""The worker with a real Redis as its broker, which deletes a task as soon as a worker has taken it."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from accounts.models import User
from servers.models import Push, Server
from servers.services.worker import heartbeat
from tests.servers.conftest import give_key, make_server
from tests.servers.farm import ADDRESSES, Farm, free_port
from tests.servers.real_worker import RealWorker, within

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@dataclass
class Redis:
    port: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:only-for-tests@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program, "Run: apt-get install --no-install-recommends redis-server"
        words = ["--bind", "127.0.0.1", "--port", str(self.port), "--requirepass", "only-for-tests", "--save", ""]
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "--", program, *words],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        within(10, self._answers, "Redis")

    def _answers(self) -> bool:
        with socket.socket() as line:
            return line.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    redis = Redis(free_port(), tmp_path)
    redis.start()
    yield redis
    redis.stop()


@pytest.fixture
def running(farm: Farm, redis: Redis, tmp_path: Path) -> Iterator[RealWorker]:
    with RealWorker(farm, tmp_path, silence=5, grace=3, BROKER_URL=redis.url) as real:
        real.wait_until_ready()
        within(30, heartbeat.last_seen, "the first heartbeat, requested through Redis")
        yield real


def test_y3_a_task_that_redis_loses_with_its_worker_is_run_all_the_same(
    farm: Farm, running: RealWorker, alice: User
) -> None:
    make_server(farm)
    farm.behave(ADDRESSES[0], "mute")
    key = give_key(alice)
    within(30, farm.commands, "the push")
    assert Push.objects.get().state == "running"
    farm.behave(ADDRESSES[0], "labhost")
    for pid in running.pool():  # during the task, which is no longer in any broker
        running.kill(pid)
    within(45, lambda: key.blob in farm.register_file(), "the key")
    within(20, lambda: Server.objects.get().state.applied_revision == 1)
    assert [push.state for push in Push.objects.order_by("pk")] == ["failed", "succeeded"]


def test_a_redis_that_dies_with_its_queue_delays_and_loses_nothing(
    farm: Farm, redis: Redis, running: RealWorker, alice: User
) -> None:
    make_server(farm)
    redis.stop()
    key = give_key(alice)
    redis.start()
    within(45, lambda: key.blob in farm.register_file(), "the key")
    assert "only-for-tests" not in running.log()
