"""Serve whatever can be claimed, several at once, so that one that hangs delays nobody."""

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
GATHER_SECONDS, GATHER_MOST = 0.012, 0.05  # results that come one soon after the other are settled together


def serve(
    claim: Callable[[int], Sequence[Job]],
    work: Callable[[Job], Result],
    *,
    settle: Callable[[list[Result]], None] = lambda _: None,
    pending: Callable[[], bool],
    threads: int,
    seconds: float,
) -> None:
    """Claim and work until nothing is left to claim and none is `pending`, but begin nothing after `seconds`.

    `claim` gives at most so many jobs as it is asked for. It is asked again while others are being worked on: what
    becomes due in the meantime does not wait for the slowest. `work` runs in threads and must bound its own time;
    what it raises is logged and stops nobody else. `settle` gets the results, in the thread of the caller.
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
                done, running = _gather(running)
                _settle(settle, [future.result() for future in done if future.exception() is None])


def _gather(running: set[Future[Result]]) -> tuple[set[Future[Result]], set[Future[Result]]]:
    """Done and not done, as soon as no more come for a moment."""
    end, before = time.monotonic() + GATHER_MOST, 0
    while True:
        done, left = wait(running, timeout=GATHER_SECONDS, return_when=ALL_COMPLETED)
        if not left or len(done) == before or time.monotonic() >= end:
            return done, left
        before = len(done)


def _settle(settle: Callable[[list[Result]], None], results: list[Result]) -> None:
    """Together if that works, else each alone, so that one does not take the others with it."""
    try:
        settle(results)
    except Exception:
        log.exception("%d results could not be settled.", len(results))
        if len(results) > 1:
            for result in results:
                _settle(settle, [result])


def _work(work: Callable[[Job], Result], job: Job) -> Result:
    try:
        return work(job)
    except Exception:
        log.exception("%s failed in an unforeseen way.", job)
        raise
    finally:
        connections.close_all()  # this thread's own; nobody else would close them
