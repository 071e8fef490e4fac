"""Serve whatever can be claimed, several at once, so that one that hangs delays nobody."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from django.db import connections

log = logging.getLogger(__name__)
Job = TypeVar("Job")
POLL_SECONDS = 0.25


def serve(
    claim: Callable[[], Job | None],
    work: Callable[[Job], None],
    *,
    pending: Callable[[], bool],
    threads: int,
    seconds: float,
) -> None:
    """Claim and work until nothing is left to claim and none is `pending`, but begin nothing after `seconds`.

    `claim` is asked again while others are being worked on: what becomes due in the meantime does not wait
    for the slowest. `work` must bound its own time; what it raises is logged and stops nobody else.
    """
    end = time.monotonic() + seconds
    running: set[Future[None]] = set()
    with ThreadPoolExecutor(threads, thread_name_prefix="serve") as pool:
        while True:
            while len(running) < threads and time.monotonic() < end and (job := claim()) is not None:
                running.add(pool.submit(_work, work, job))
            if not running:
                if time.monotonic() >= end or not pending():
                    return
                time.sleep(POLL_SECONDS)
            done, running = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()


def _work(work: Callable[[Job], None], job: Job) -> None:
    try:
        work(job)
    except Exception:
        log.exception("%s failed in an unforeseen way.", job)
    finally:
        connections.close_all()  # this thread's own; nobody else would close them
