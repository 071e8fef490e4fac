"""Restart the cluster when it ends, or when it sends no heartbeat although one was requested."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db import connections

from servers.processes.cluster import Cluster
from servers.services.worker import heartbeat, queue

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
CHECK_SECONDS = 1.0
REQUEST_SECONDS = 10.0
MAX_FAILURES = 5  # failed starts in a row
SHORT_LIFE, PAUSE = 10.0, 0.5  # seconds: after so short a life it is restarted with a pause


@dataclass(frozen=True)
class Limits:
    """`silence`: seconds without a heartbeat after which a cluster is wedged; `grace`: seconds to finish."""

    silence: float
    grace: float


def watch(cluster: Cluster, limits: Limits, is_over: Callable[[], bool]) -> bool:
    """Keep `cluster` running until `is_over`; False if it keeps failing at start. Leaves none of its processes."""
    failures = 0
    while not is_over():
        connections.close_all()  # two processes must not share a connection
        cluster.start()
        heartbeats = _Heartbeats(limits.silence)
        try:
            reason = _watch_one(cluster, heartbeats, is_over)
        finally:
            _end(cluster, limits, is_over)
        if is_over():
            break
        failures = 0 if heartbeats.were_seen else failures + 1
        if failures >= MAX_FAILURES:
            log.error("Giving up: the worker failed %d times at start; %s.", failures, reason)
            return False
        log.warning("Restarting the worker: %s.", reason)
        if failures or time.monotonic() - heartbeats.began < SHORT_LIFE:
            _pause(PAUSE * 2**failures, is_over)
    return True


def _end(cluster: Cluster, limits: Limits, is_over: Callable[[], bool]) -> None:
    if not is_over():
        cluster.kill()
    elif not cluster.stop(limits.grace):
        log.warning("The worker did not finish within %.0f s and was killed.", limits.grace)


def _watch_one(cluster: Cluster, heartbeats: "_Heartbeats", is_over: Callable[[], bool]) -> str:
    """Wait until the cluster must be ended; returns why."""
    while not is_over():
        if not cluster.is_running():
            return "it ended by itself"
        if heartbeats.are_missing():
            return f"no heartbeat for {heartbeats.limit:.0f} s"
        time.sleep(POLL_SECONDS)
    return ""


def _pause(seconds: float, is_over: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not is_over():
        time.sleep(POLL_SECONDS)


class _Heartbeats:
    """The heartbeats of one cluster. Only changes of the row count, so that no two clocks are compared."""

    def __init__(self, limit: float) -> None:
        self.limit, self.were_seen = limit, False
        self.began = self._since = time.monotonic()  # _since: the last heartbeat, or when none could be read
        self._checked = self._requested = 0.0
        self._last: datetime | None = None
        self._is_first, self._is_blind, self._has_asked = True, False, False

    def are_missing(self) -> bool:
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return False
        self._checked = now
        try:
            self._check(now)
            if now - self._requested >= min(REQUEST_SECONDS, self.limit / 4):
                self._requested = now
                queue.request_heartbeat()
                if not self._has_asked:
                    queue.request_ask()
                    self._has_asked = True
            self._is_blind = False
        except Exception as error:
            # Without the database or the broker nothing is known about the worker, and a new one would not help.
            if not self._is_blind:
                log.warning("The worker's heartbeat cannot be requested: %s", error)
            self._is_blind, self._since = True, now
        return now - self._since > self.limit

    def _check(self, now: float) -> None:
        last = heartbeat.last_seen()
        if last != self._last:
            self.were_seen = self.were_seen or not self._is_first
            self._last, self._since = last, now
        self._is_first = False
