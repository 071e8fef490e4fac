"""What the worker runs. Each task may be lost, repeated or killed: the work stands in rows."""

from datetime import timedelta

from servers.models import Server
from servers.services import delivery, guards, inspection, names, placements, queue, recording, registration, worker

ACTOR = "worker"
NAMES_SECONDS = 60.0
NAMES_AFTER = 0.3  # the keys go first
SIGN_EVERY = timedelta(seconds=75)


def converge() -> None:
    """Update full names from the directory, and push the keys to every server that is due."""
    worker.alive(unless_within=SIGN_EVERY)  # reconcile gives one each minute: here it would only delay the keys
    refresh = names.start_refresh(actor=ACTOR, after=NAMES_AFTER)
    delivery.converge(actor=ACTOR)
    refresh.join(NAMES_SECONDS)
    worker.alive()


def sync_names() -> None:
    names.refresh(actor=ACTOR)


def register() -> None:
    worker.alive()
    registration.run()
    worker.alive()


def inspect() -> None:
    worker.alive()
    inspection.inspect(actor=ACTOR)
    worker.alive()


def reconcile() -> None:
    """Each minute: find work that was lost with a worker or a broker, and have it done."""
    worker.alive()
    delivery.recover()
    if delivery.has_due():
        queue.soon(queue.CONVERGE)
    if registration.recover():
        queue.soon(queue.REGISTER)
    if inspection.is_due():
        queue.soon(queue.INSPECT)
    for server in Server.objects.all():
        recording.prune(server)
    placements.prune()
    guards.forget()
