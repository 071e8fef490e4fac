"""What the worker runs. Each task may be lost, repeated or killed: the work stands in rows."""

from servers.models import Server
from servers.services import (
    delivery,
    guards,
    inspection,
    names,
    placements,
    queue,
    recording,
    registration,
    removal,
    worker,
)

ACTOR = "worker"
NAMES_SECONDS = 60.0
NAMES_AFTER = 0.3  # the keys go first


def converge() -> None:
    """Update full names from the directory, and push the keys to every server that is due."""
    if not (delivery.is_pending() or names.is_due()):
        return  # one order of a burst, which another has served
    with worker.at_work():
        refresh = names.start_refresh(actor=ACTOR, after=NAMES_AFTER)
        delivery.converge(actor=ACTOR)
        refresh.join(NAMES_SECONDS)


def sync_names() -> None:
    names.refresh(actor=ACTOR)


def register() -> None:
    with worker.at_work():
        registration.run()


def inspect() -> None:
    with worker.at_work():
        inspection.inspect(actor=ACTOR)


def beat() -> None:
    """Every few seconds, and when a worker starts: say that it is there, and have done what was lost."""
    worker.alive()
    delivery.recover()
    if delivery.has_due():
        queue.soon(queue.CONVERGE)
    removal.suspend_forgotten(actor=ACTOR)
    if registration.recover():
        queue.soon(queue.REGISTER)


def reconcile() -> None:
    """Each minute, also without a watchdog: the same, and what has time."""
    beat()
    if inspection.is_due():
        queue.soon(queue.INSPECT)
    for server in Server.objects.all():
        recording.prune(server)
    placements.prune()
    guards.forget()
