"""Suspends a person who was locked out: sessions end and the container stops; account, files and numbers stay.

The keys go first, by a push: while they are live the person could log in again, so this waits for it.
"""

import time

from labhost.errors import Busy
from labhost.host import Host, locks, user_state
from labhost.keys import applied_keys
from labhost.people import shutdown, steps
from labhost.system import Progress, check_name, log

KEYS_SECONDS = 20.0


def suspend(host: Host, name: str, progress: Progress) -> None:
    """Safe to repeat. Busy while the person's keys are live here; NotRegistered if there is nothing to suspend."""
    check_name(name)
    _wait_for_keys(host, name)
    with locks.user(host, name):
        user = user_state.load_user(host, name)
        if user is None or not user.managed:
            raise user_state.no_account(host, name)
        user.desired_state = "stopped"
        user_state.save_user(host, user)
        steps.perform(steps.Run(host, user, progress), shutdown.STEPS, prefix="suspend:", note=lambda _: None)
    log.write(f"{name}: suspended")


def _wait_for_keys(host: Host, name: str) -> None:
    deadline = time.monotonic() + KEYS_SECONDS
    while applied_keys.load(host).users.get(name):
        if time.monotonic() >= deadline:
            text = f"the keys of {name} are still live here; push the keys first"
            raise Busy(text, reason="keys_still_live", name=name)
        time.sleep(0.5)
