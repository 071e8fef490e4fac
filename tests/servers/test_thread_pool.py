import threading

import pytest

from servers.services.worker import thread_pool


class Work:
    """Jobs are numbers; `taken` and `recorded` list what happened to them."""

    def __init__(self, jobs: range) -> None:
        self.waiting, self.taken, self.recorded = list(jobs), list[int](), list[list[int]]()
        self.rooms: list[int] = []

    def claim(self, room: int) -> list[int]:
        self.rooms.append(room)
        claimed, self.waiting = self.waiting[:room], self.waiting[room:]
        self.taken += claimed
        return claimed

    def record(self, results: list[int]) -> None:
        self.recorded.append(results)

    @property
    def all_recorded(self) -> list[int]:
        return sorted(result for results in self.recorded for result in results)

    def serve(self, work: object, *, threads: int = 4) -> None:
        thread_pool.serve(self.claim, work, record=self.record, pending=lambda: False, threads=threads, seconds=10)  # type: ignore[arg-type]


def test_results_that_arrive_together_are_recorded_together_in_the_callers_thread() -> None:
    jobs, threads = Work(range(8)), set()
    real = jobs.record

    def record(results: list[int]) -> None:
        threads.add(threading.current_thread())
        real(results)

    jobs.record = record  # type: ignore[method-assign]
    jobs.serve(lambda job: job, threads=8)
    assert jobs.all_recorded == list(range(8)) and len(jobs.recorded) < 8
    assert threads == {threading.current_thread()}


def test_no_more_work_is_claimed_than_there_are_threads() -> None:
    jobs = Work(range(10))
    jobs.serve(lambda job: job, threads=3)
    assert max(jobs.rooms) == 3 and jobs.all_recorded == list(range(10))


def test_an_exception_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    jobs = Work(range(4))

    def work(job: int) -> int:
        if job == 2:
            raise ValueError
        return job

    jobs.serve(work)
    assert jobs.all_recorded == [0, 1, 3] and "unexpectedly" in caplog.text


def test_a_result_that_cannot_be_recorded_does_not_lose_the_others(caplog: pytest.LogCaptureFixture) -> None:
    jobs, kept = Work(range(4)), list[int]()

    def record(results: list[int]) -> None:
        if 2 in results:
            raise ValueError
        kept.extend(results)

    jobs.record = record  # type: ignore[method-assign]
    jobs.serve(lambda job: job)
    assert sorted(kept) == [0, 1, 3] and "could not be recorded" in caplog.text


def test_new_work_does_not_wait_for_the_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, is_served = Work(range(1)), threading.Event()

    def work(job: int) -> int:
        if job == 0:
            jobs.waiting.append(7)
            assert is_served.wait(20), "it waited for the slowest"
        is_served.set()
        return job

    jobs.serve(work)
    assert jobs.all_recorded == [0, 7]
