"""Wake the worker. The order itself stands in a row already: what the broker loses, reconcile finds."""

from django.db import transaction
from django_q.tasks import async_task

PUSH, CONTAINER_JOBS, INSPECT = "servers.tasks.push_keys", "servers.tasks.run_container_jobs", "servers.tasks.inspect"
HEARTBEAT = "servers.tasks.send_heartbeat"


def enqueue(task: str) -> None:
    """Have the worker run one of the tasks as soon as this transaction is committed."""
    # robust: a broker that is down must not undo or hide what was just saved
    transaction.on_commit(lambda: async_task(task), robust=True)


def request_heartbeat() -> None:
    """Have the worker give a sign of life now, and look for what was lost. Raises what the broker raises."""
    async_task(HEARTBEAT, q_options={"save": False})  # asked every few seconds: no row of each
