import threading

import pytest

from servers.services.worker import thread_pool


class Work:
    """Jobs are numbers; `taken` and `settled` are what became of them."""

    def __init__(self, jobs: range) -> None:
        self.waiting, self.taken, self.settled = list(jobs), list[int](), list[list[int]]()
        self.rooms: list[int] = []

    def claim(self, room: int) -> list[int]:
        self.rooms.append(room)
        claimed, self.waiting = self.waiting[:room], self.waiting[room:]
        self.taken += claimed
        return claimed

    def settle(self, results: list[int]) -> None:
        self.settled.append(results)

    @property
    def all_settled(self) -> list[int]:
        return sorted(result for results in self.settled for result in results)

    def serve(self, work: object, *, threads: int = 4) -> None:
        thread_pool.serve(self.claim, work, settle=self.settle, pending=lambda: False, threads=threads, seconds=10)  # type: ignore[arg-type]


def test_results_that_come_together_are_settled_together_in_the_callers_thread() -> None:
    jobs, threads = Work(range(8)), set()
    real = jobs.settle

    def settle(results: list[int]) -> None:
        threads.add(threading.current_thread())
        real(results)

    jobs.settle = settle  # type: ignore[method-assign]
    jobs.serve(lambda job: job, threads=8)
    assert jobs.all_settled == list(range(8)) and len(jobs.settled) < 8
    assert threads == {threading.current_thread()}


def test_never_more_are_claimed_than_there_are_threads() -> None:
    jobs = Work(range(10))
    jobs.serve(lambda job: job, threads=3)
    assert max(jobs.rooms) == 3 and jobs.all_settled == list(range(10))


def test_what_raises_stops_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    jobs = Work(range(4))

    def work(job: int) -> int:
        if job == 2:
            raise ValueError
        return job

    jobs.serve(work)
    assert jobs.all_settled == [0, 1, 3] and "unforeseen" in caplog.text


def test_a_result_that_cannot_be_settled_does_not_take_the_others_with_it(caplog: pytest.LogCaptureFixture) -> None:
    jobs, kept = Work(range(4)), list[int]()

    def settle(results: list[int]) -> None:
        if 2 in results:
            raise ValueError
        kept.extend(results)

    jobs.settle = settle  # type: ignore[method-assign]
    jobs.serve(lambda job: job)
    assert sorted(kept) == [0, 1, 3] and "could not be settled" in caplog.text


def test_what_becomes_due_meanwhile_does_not_wait_for_the_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, is_served = Work(range(1)), threading.Event()

    def work(job: int) -> int:
        if job == 0:
            jobs.waiting.append(7)
            assert is_served.wait(20), "it waited for the slowest"
        is_served.set()
        return job

    jobs.serve(work)
    assert jobs.all_settled == [0, 7]
