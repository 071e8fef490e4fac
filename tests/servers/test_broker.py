"""The queue of the worker: queued work wakes it immediately; work of another machine is found by polling."""

import time
from pathlib import Path

import pytest
from django_q.conf import Conf
from pytest_django.fixtures import Settings

from servers.processes import broker
from tests.servers.conftest import started

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def queue(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> broker.Broker:
    settings.DATA_DIR = tmp_path
    monkeypatch.setattr(broker, "POLL_SECONDS", 20.0)
    return broker.Broker(list_key="lab-iam")


def waited(queue: broker.Broker) -> float:
    """Seconds until an empty queue gives up waiting, when something is queued after 0.3 seconds."""
    began = time.monotonic()
    waiting = started(queue.dequeue)
    time.sleep(0.3)
    queue.enqueue("one")
    waiting.join(30)
    return time.monotonic() - began


def test_django_q_itself_does_not_wait() -> None:
    assert Conf.POLL == 0 and Conf.BROKER_CLASS == "servers.processes.broker.Broker"


def test_queued_work_wakes_the_worker_that_waits(queue: broker.Broker) -> None:
    assert 0.3 <= waited(queue) < 5
    assert [task for _, task in queue.dequeue()] == ["one"]


def test_work_that_was_queued_before_is_not_waited_for(queue: broker.Broker) -> None:
    waited(queue)
    queue.enqueue("two")
    assert len([task for _ in range(2) for task in queue.dequeue()]) == 2


def test_without_a_socket_it_is_found_by_polling(
    queue: broker.Broker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "POLL_SECONDS", 0.6)
    settings.DATA_DIR = settings.DATA_DIR / ("too-long-for-a-socket" * 6)
    assert 0.6 <= waited(queue) < 5
    assert [task for _, task in queue.dequeue()] == ["one"]


def test_a_missing_or_dead_listener_does_not_disturb_queueing(queue: broker.Broker, tmp_path: Path) -> None:
    queue.enqueue("one")
    (tmp_path / "worker.wake").write_text("no socket")
    queue.enqueue("two")
    assert len([task for _ in range(2) for task in queue.dequeue()]) == 2
    assert 0.3 <= waited(queue) < 5, "what is left of another worker is replaced"
