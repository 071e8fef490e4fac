"""Claim jobs and work on several at once, so that one that hangs delays no other."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from django.db import connections

log = logging.getLogger(__name__)
Job = TypeVar("Job")
Result = TypeVar("Result")
POLL_SECONDS = 0.25
BATCH_SECONDS, BATCH_MOST = 0.012, 0.05  # results that come shortly after each other are recorded together


def serve(
    claim: Callable[[int], Sequence[Job]],
    work: Callable[[Job], Result],
    *,
    record: Callable[[list[Result]], None] = lambda _: None,
    pending: Callable[[], bool] = lambda: False,
    threads: int,
    seconds: float,
) -> None:
    """Claim and work until nothing is left to claim and nothing is `pending`, but begin nothing after `seconds`.

    `claim(room)` returns at most `room` jobs. It is called again during the work, so that a job that becomes due does
    not wait for the slowest. `work` runs in threads and must bound its own time; what it raises is logged and does
    not affect other jobs. `record` is called with the results, in the caller's thread.
    """
    end = time.monotonic() + seconds
    running: set[Future[Result]] = set()
    with ThreadPoolExecutor(threads, thread_name_prefix="serve") as pool:
        asked = 0.0
        while True:
            now = time.monotonic()
            if len(running) < threads and now < end and (not running or now - asked >= POLL_SECONDS):
                asked = now
                running |= {pool.submit(_work, work, job) for job in claim(threads - len(running))}
            if not running:
                if time.monotonic() >= end or not pending():
                    return
                time.sleep(POLL_SECONDS)
                continue
            if wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED).done:
                done, running = _batch(running)
                _record(record, [future.result() for future in done if future.exception() is None])


def _batch(running: set[Future[Result]]) -> tuple[set[Future[Result]], set[Future[Result]]]:
    """Done and not done, as soon as no more finish for a moment."""
    end, before = time.monotonic() + BATCH_MOST, 0
    while True:
        done, left = wait(running, timeout=BATCH_SECONDS, return_when=ALL_COMPLETED)
        if not left or len(done) == before or time.monotonic() >= end:
            return done, left
        before = len(done)


def _record(record: Callable[[list[Result]], None], results: list[Result]) -> None:
    """Record all together if possible, else each alone, so that one failure does not affect the others."""
    try:
        record(results)
    except Exception:
        log.exception("Results that could not be recorded: %d.", len(results))
        if len(results) > 1:
            for result in results:
                _record(record, [result])


def _work(work: Callable[[Job], Result], job: Job) -> Result:
    try:
        return work(job)
    except Exception:
        log.exception("%s failed unexpectedly.", job)
        raise
    finally:
        connections.close_all()  # this thread's own connections
