"""The queue of the worker: queued work wakes it immediately; work of another machine is found by polling."""

from pathlib import Path

import pytest
from django_q.conf import Conf
from pytest_django.fixtures import Settings

from servers.processes import broker
from tests.lab.waiting import ends_within, eventually
from tests.servers.conftest import started

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def queue(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> broker.Broker:
    settings.DATA_DIR = tmp_path
    monkeypatch.setattr(broker, "POLL_SECONDS", 60.0)
    return broker.Broker(list_key="lab-iam")


def is_woken(queue: broker.Broker, folder: Path) -> bool:
    """Whether waiting at an empty queue lasts until work is queued, and then ends."""
    waiting = started(queue.dequeue)
    eventually((folder / "worker.wake").is_socket, "the listener")
    is_waiting = waiting.is_alive()
    queue.enqueue("one")
    waiting.join(20)
    return is_waiting and not waiting.is_alive()


def test_django_q_itself_does_not_block() -> None:
    assert Conf.POLL == 0 and Conf.BROKER_CLASS == "servers.processes.broker.Broker"


def test_queued_work_wakes_the_waiting_worker(queue: broker.Broker, tmp_path: Path) -> None:
    assert is_woken(queue, tmp_path)
    assert [task for _, task in queue.dequeue()] == ["one"]


def test_work_that_was_queued_before_is_returned_at_once(queue: broker.Broker) -> None:
    queue.enqueue("one")
    queue.enqueue("two")
    assert len([task for _ in range(2) for task in queue.dequeue()]) == 2


def test_without_a_socket_work_is_found_by_polling(
    queue: broker.Broker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "POLL_SECONDS", 0.6)
    settings.DATA_DIR = settings.DATA_DIR / ("too-long-for-a-socket" * 6)
    with ends_within(20):
        assert not queue.dequeue()
    queue.enqueue("one")
    assert [task for _, task in queue.dequeue()] == ["one"]


def test_a_missing_or_dead_listener_does_not_disturb_queueing(queue: broker.Broker, tmp_path: Path) -> None:
    queue.enqueue("one")
    (tmp_path / "worker.wake").write_text("no socket")
    queue.enqueue("two")
    assert len([task for _ in range(2) for task in queue.dequeue()]) == 2
    (tmp_path / "worker.wake").write_text("no socket")
    assert is_woken(queue, tmp_path), "the socket of another worker is replaced"
