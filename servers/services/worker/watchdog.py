"""Keep the cluster at work: start it again when it ends, or when it is silent although it was asked for a sign."""

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
LOOK_SECONDS = 1.0
ASK_SECONDS = 10.0
MOST_FAILURES = 5  # starts in a row that came to nothing
SHORT_LIFE, PAUSE = 10.0, 0.5  # seconds: what ends so soon is not started again without a pause


@dataclass(frozen=True)
class Limits:
    """`silence`: seconds without a sign of life after which a cluster is wedged; `grace`: seconds to finish."""

    silence: float
    grace: float


def watch(cluster: Cluster, limits: Limits, is_over: Callable[[], bool]) -> bool:
    """Keep `cluster` at work until `is_over`; False if it keeps failing at start. Nothing of it is left after."""
    failures = 0
    while not is_over():
        connections.close_all()  # a connection must not be shared by two processes
        cluster.start()
        signs = _Signs(limits.silence)
        try:
            reason = _watch_one(cluster, signs, is_over)
        finally:
            _end(cluster, limits, is_over)
        if is_over():
            break
        failures = 0 if signs.was_seen else failures + 1
        if failures >= MOST_FAILURES:
            log.error("The worker failed %d times at start, the last time because %s: given up.", failures, reason)
            return False
        log.warning("The worker is started again: %s.", reason)
        if failures or time.monotonic() - signs.began < SHORT_LIFE:
            _pause(PAUSE * 2**failures, is_over)
    return True


def _end(cluster: Cluster, limits: Limits, is_over: Callable[[], bool]) -> None:
    if not is_over():
        cluster.kill()
    elif not cluster.stop(limits.grace):
        log.warning("The worker did not finish within %.0f s and was killed.", limits.grace)


def _watch_one(cluster: Cluster, signs: "_Signs", is_over: Callable[[], bool]) -> str:
    """Until it must be ended; gives why."""
    while not is_over():
        if not cluster.is_running():
            return "it ended by itself"
        if signs.are_missing():
            return f"it gave no sign of life for {signs.limit:.0f} s"
        time.sleep(POLL_SECONDS)
    return ""


def _pause(seconds: float, is_over: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not is_over():
        time.sleep(POLL_SECONDS)


class _Signs:
    """What was seen of one cluster. Only changes of the row count, so that no two clocks are compared."""

    def __init__(self, limit: float) -> None:
        self.limit, self.was_seen = limit, False
        self.began = self._since = time.monotonic()  # _since: of the last sign, or when it could not be judged
        self._looked = self._asked = 0.0
        self._last: datetime | None = None
        self._is_first, self._is_blind = True, False

    def are_missing(self) -> bool:
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return False
        self._looked = now
        try:
            self._look(now)
            if now - self._asked >= min(ASK_SECONDS, self.limit / 4):
                self._asked = now
                queue.request_heartbeat()
            self._is_blind = False
        except Exception as error:
            # Without its database or its broker a worker cannot be judged, and a new one would fare no better.
            if not self._is_blind:
                log.warning("The worker cannot be asked for a sign of life: %s", error)
            self._is_blind, self._since = True, now
        return now - self._since > self.limit

    def _look(self, now: float) -> None:
        seen = heartbeat.last_seen()
        if seen != self._last:
            self.was_seen = self.was_seen or not self._is_first
            self._last, self._since = seen, now
        self._is_first = False
