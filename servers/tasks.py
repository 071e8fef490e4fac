"""The worker's tasks. Each may be lost, repeated or killed: rows say what is to be done."""

from datetime import timedelta

from accounts.services import revision
from servers.models import Server, ServerState
from servers.services.containers import jobs
from servers.services.fleet import inspection
from servers.services.push import guard, results, runner
from servers.services.status import placements
from servers.services.worker import full_names, heartbeat, queue

ACTOR = "worker"
NAMES_SECONDS = 60.0
NAMES_DELAY = 0.3  # the keys go first


def push_keys() -> None:
    """Update full names from the directory, and push the keys to every server that is due."""
    if not (runner.is_pending() or full_names.is_due()):
        return  # another task of the same burst has done it
    with heartbeat.beating():
        refresh = full_names.start_refresh(actor=ACTOR, delay=NAMES_DELAY)
        runner.push_due(actor=ACTOR)
        refresh.join(NAMES_SECONDS)


def sync_names() -> None:
    full_names.refresh(actor=ACTOR)


def run_container_jobs() -> None:
    with heartbeat.beating():
        jobs.run_waiting()


def inspect() -> None:
    with heartbeat.beating():
        inspection.inspect(actor=ACTOR)
    if inspection.is_due():
        queue.enqueue(queue.INSPECT)


def ask_all() -> None:
    """When a worker starts."""
    inspection.ask_all()
    inspect()


def send_heartbeat() -> None:
    """Every few seconds, and when a worker starts: record a heartbeat, and queue what was lost."""
    heartbeat.beat()
    runner.close_interrupted()
    if runner.is_pending(timedelta(0)):
        queue.enqueue(queue.PUSH)
    jobs.recover_suspensions(actor=ACTOR)
    if jobs.recover_interrupted():
        queue.enqueue(queue.CONTAINER_JOBS)


def reconcile() -> None:
    """Each minute, also without a watchdog: the same, and clean-up."""
    send_heartbeat()
    if inspection.is_due():
        queue.enqueue(queue.INSPECT)
    for server in Server.objects.all():
        results.prune(server)
    placements.prune()
    revision.prune_ids(keep=ServerState.objects.values_list("applied_revision", flat=True))
    guard.prune()
