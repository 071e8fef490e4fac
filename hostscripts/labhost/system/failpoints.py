"""Places where a test kills the process, to prove that the next run completes what this one began.

`LABHOST_FAILPOINT=STEP` in root's environment sends SIGKILL right after the step was done and recorded; `before:STEP`
right before it; `unnoted:STEP` after it was done and before it was recorded. `LABHOST_FAILPOINT=?` prints the places
on standard error as they are passed. Ignored under sudo, so no user can use it.
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
