"""What the worker runs. Each task may be lost, repeated or killed: the work stands in rows."""

from servers.models import Server
from servers.services.containers import jobs, suspension
from servers.services.fleet import inspection
from servers.services.push import guard, results, runner
from servers.services.status import placements
from servers.services.worker import full_names, heartbeat, queue

ACTOR = "worker"
NAMES_SECONDS = 60.0
NAMES_AFTER = 0.3  # the keys go first


def converge() -> None:
    """Update full names from the directory, and push the keys to every server that is due."""
    if not (runner.is_pending() or full_names.is_due()):
        return  # one order of a burst, which another has served
    with heartbeat.at_work():
        refresh = full_names.start_refresh(actor=ACTOR, after=NAMES_AFTER)
        runner.converge(actor=ACTOR)
        refresh.join(NAMES_SECONDS)


def sync_names() -> None:
    full_names.refresh(actor=ACTOR)


def register() -> None:
    with heartbeat.at_work():
        jobs.run()


def inspect() -> None:
    with heartbeat.at_work():
        inspection.inspect(actor=ACTOR)


def beat() -> None:
    """Every few seconds, and when a worker starts: say that it is there, and have done what was lost."""
    heartbeat.alive()
    runner.recover()
    if runner.has_due():
        queue.soon(queue.CONVERGE)
    suspension.suspend_forgotten(actor=ACTOR)
    if jobs.recover():
        queue.soon(queue.REGISTER)


def reconcile() -> None:
    """Each minute, also without a watchdog: the same, and what has time."""
    beat()
    if inspection.is_due():
        queue.soon(queue.INSPECT)
    for server in Server.objects.all():
        results.prune(server)
    placements.prune()
    guard.forget()
