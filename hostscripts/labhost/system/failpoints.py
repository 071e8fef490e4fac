"""Places where a test kills the process, to prove that the next run completes what this one began.

`LABHOST_FAILPOINT=STEP` in root's environment: SIGKILL right after the step was done and noted; `before:STEP`
right before it; `unnoted:STEP` after it was done, before it was noted. `LABHOST_FAILPOINT=?` only names the places on
standard error as they are passed. Never heeded under sudo, so that no user can reach it.
"""

import os
import signal
import sys


def hit(name: str) -> None:
    wanted = os.environ.get("LABHOST_FAILPOINT") if "SUDO_UID" not in os.environ else None
    if wanted == name:
        os.kill(os.getpid(), signal.SIGKILL)
    if wanted == "?":
        sys.stderr.write(f"fault: {name}\n")
