"""Suspend a person who was locked out: her sessions end and her container stops; account, files and numbers stay.

The keys go first, by a push: as long as they are live here she could come back at once, so this waits for it.
"""

import time

from labhost.errors import Busy, NotRegistered
from labhost.host import locks, user_state
from labhost.host.config import Host
from labhost.keys import applied_keys
from labhost.people import removal
from labhost.system import log
from labhost.system.names import check_name
from labhost.system.progress import Progress

WAIT = 120.0
KEYS_SECONDS = 20.0
ENDS = ("sessions", "rules", "container", "manager")  # those steps of a removal


def suspend(host: Host, name: str, progress: Progress) -> None:
    """Safe to repeat. Busy while her keys are live here; NotRegistered if there is nothing to suspend."""
    check_name(name)
    _wait_for_keys(host, name)
    with locks.hold(host, locks.user_lock(name), seconds=WAIT, doing=f"{name}'s container is at work"):
        user = user_state.load_user(host, name)
        if user is None or not user.managed:
            raise NotRegistered(f"{name} has nothing on {host.config.server.name}")
        user.desired_state = "stopped"
        user_state.save_user(host, user)
        run = removal.Run(host, user, progress)
        for step, text, action in removal.STEPS:
            if step in ENDS:
                progress.write(text)
                action(run)
    log.write(f"{name}: suspended")


def _wait_for_keys(host: Host, name: str) -> None:
    deadline = time.monotonic() + KEYS_SECONDS
    while applied_keys.load(host).users.get(name):
        if time.monotonic() >= deadline:
            raise Busy(f"the keys of {name} are still live here; push them")
        time.sleep(0.5)
