"""`./lab demo`: set up a lab, walk the six flows step by step, and leave it running."""

import sys
import time

from tests.lab.flows import FLOWS
from tests.lab.lab import PEOPLE, STAFF, Lab
from tests.lab.portal import browser_socket
from tests.lab.progress import progress
from tests.lab.walk import Step, Walk

WIDTH = 92


def demo(lab: Lab) -> int:
    """Returns 0 if every step of the six flows worked, 1 at the first that failed."""
    began = time.monotonic()
    if lab.exists:
        with progress("removing the previous demo"):
            lab.remove()
    print("Booting a directory, the portal with its worker, and the GPU servers gpu17 and gpu18")
    outside = browser_socket()
    lab.make(outside)
    print(f"Ready after {time.monotonic() - began:.1f} s. The main job, step by step:")
    walk = Walk(lab)
    for flow in FLOWS:
        print(f"\n{flow.title}")
        for step in flow.steps:
            if not _walk_step(walk, step):
                print(
                    f"\nThe demo stopped here; the lab still runs: look around, then './lab down'. Logs: {lab.folder}"
                )
                return 1
    print(_doors(f"http://127.0.0.1:{outside.getsockname()[1]}"))
    return 0


def _walk_step(walk: Walk, step: Step) -> bool:
    began = time.monotonic()
    try:
        with progress(step.text.strip()):
            seen = step.check(walk)
    except Exception as error:  # show which step failed, whatever the reason
        print(f"  ✗ {step.number:>3}  {step.text}\n         {type(error).__name__}: {error}", file=sys.stderr)
        return False
    seconds = f"{time.monotonic() - began:.1f} s"
    print(f"  ✓ {step.number:>3}  {step.text:<{WIDTH}} {seconds:>7}\n         {seen}", flush=True)
    return True


def _doors(address: str) -> str:
    return f"""
Every step happened. The lab stays up:

  portal      {address}
  staff       {STAFF} / {PEOPLE[STAFF][1]}   (the admin is at {address}/admin/)
  people      {", ".join(f"{name} / {password}" for name, (_, password) in PEOPLE.items() if name != STAFF)}
  try         ./lab ssh gpu17            a shell in the container, as lqchen
              ./lab ssh gpu17-manage     start it
              ./lab ssh gpu17-manage status
  end it      ./lab down
"""
