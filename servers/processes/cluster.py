"""One django-q cluster as its own process group, in which no process outlives its parent.

Without this, a django-q cluster goes on when its main process is killed, and hangs when an idle worker process is
killed. Here a group is ended as a whole. The cluster is forked, not executed, so that a restart is quick.
"""

import ctypes
import gc
import logging
import os
import signal
import time
from typing import Any, Never

from django_q.cluster import Cluster as Processes

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
M_ARENA_MAX, ARENAS = -8, 2  # mallopt(3): with a heap each, 48 threads would hold the memory of one big push
_SIGNALS = {signal.SIGTERM, signal.SIGINT}

log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None)


class Cluster:
    """To be started from the main thread, with no database connection open."""

    def __init__(self) -> None:
        self.pid = 0  # of the main process and of its group; 0 while there is none
        # Orphans of the group become our children, so that we know when none is left.
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)

    def start(self) -> None:
        parent = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # none may arrive between two handlers
        pid = os.fork()
        if pid == 0:
            _serve(parent, before)
        os.setpgid(pid, pid)
        self.pid = pid
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def is_running(self) -> bool:
        """Whether its main process exists, which is also true of a wedged cluster."""
        return self.pid != 0 and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def stop(self, patience: float) -> bool:
        """Let it finish the running tasks. After `patience` seconds kill what is left, and return False."""
        if self.is_running():
            os.kill(self.pid, signal.SIGTERM)
        end = time.monotonic() + patience
        while self._reap() and time.monotonic() < end:
            time.sleep(0.05)
        is_left = self._reap()
        self.kill()
        return not is_left

    def kill(self) -> None:
        """Kill every process of the group, and wait until all are gone."""
        while self._reap():
            os.killpg(self.pid, signal.SIGKILL)
            time.sleep(0.01)
        self.pid = 0

    def _reap(self) -> bool:
        """Collect ended processes; returns whether any of the group is left."""
        try:
            while self.pid and os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return False
        return self.pid != 0


def _serve(parent: int, mask: Any) -> Never:
    """In the child: run a cluster until a signal stops it."""
    status = 1
    try:
        os.setpgid(0, 0)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _die_with(parent)
        _libc.mallopt(M_ARENA_MAX, ARENAS)
        gc.collect()
        gc.freeze()  # what is loaded by now stays in pages that the cluster's processes share
        os.register_at_fork(before=_note_parent, after_in_child=lambda: _die_with(_parent))
        processes = Processes()  # takes over SIGTERM and SIGINT
        processes.start()
        processes.sentinel.join()
        status = 0
    except Exception as error:
        log.error("The cluster could not be started: %s", error)
    finally:
        os._exit(status)


_parent = 0


def _note_parent() -> None:
    global _parent
    _parent = os.getpid()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, for whatever reason."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the prctl
