"""The queue of the worker: an order rouses it at once; one of another machine is found by looking."""

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
    monkeypatch.setattr(broker, "LOOK_SECONDS", 60.0)
    return broker.Broker(list_key="lab-iam")


def is_woken(queue: broker.Broker, folder: Path) -> bool:
    """Whether an empty queue that waits does so until something is ordered, and then no longer."""
    waiting = started(queue.dequeue)
    eventually((folder / "worker.wake").is_socket, "that it listens")
    is_waiting = waiting.is_alive()
    queue.enqueue("one")
    waiting.join(20)
    return is_waiting and not waiting.is_alive()


def test_django_q_itself_does_not_wait() -> None:
    assert Conf.POLL == 0 and Conf.BROKER_CLASS == "servers.processes.broker.Broker"


def test_an_order_rouses_the_one_who_waits(queue: broker.Broker, tmp_path: Path) -> None:
    assert is_woken(queue, tmp_path)
    assert [task for _, task in queue.dequeue()] == ["one"]


def test_an_order_that_came_before_is_not_waited_for(queue: broker.Broker) -> None:
    queue.enqueue("one")
    queue.enqueue("two")
    assert len([task for _ in range(2) for task in queue.dequeue()]) == 2


def test_without_a_socket_it_is_found_by_looking(
    queue: broker.Broker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "LOOK_SECONDS", 0.6)
    settings.DATA_DIR = settings.DATA_DIR / ("too-long-for-a-socket" * 6)
    with ends_within(20):
        assert not queue.dequeue()
    queue.enqueue("one")
    assert [task for _, task in queue.dequeue()] == ["one"]


def test_nobody_who_listens_and_one_who_is_gone_do_not_disturb_an_order(queue: broker.Broker, tmp_path: Path) -> None:
    queue.enqueue("one")
    (tmp_path / "worker.wake").write_text("no socket")
    queue.enqueue("two")
    assert len([task for _ in range(2) for task in queue.dequeue()]) == 2
    (tmp_path / "worker.wake").write_text("no socket")
    assert is_woken(queue, tmp_path), "what is left of another worker is replaced"
