"""Wake the worker. What is to be done is in a row already: reconcile finds what the broker loses."""

from django.db import transaction
from django_q.tasks import async_task

PUSH, CONTAINER_JOBS, INSPECT = "servers.tasks.push_keys", "servers.tasks.run_container_jobs", "servers.tasks.inspect"
HEARTBEAT, ASK_ALL = "servers.tasks.send_heartbeat", "servers.tasks.ask_all"


def enqueue(task: str) -> None:
    """Have the worker run one of the tasks as soon as this transaction is committed."""
    # robust: a broker that is down must not undo what was just saved
    transaction.on_commit(lambda: async_task(task), robust=True)


def request_heartbeat() -> None:
    """Have the worker send a heartbeat now, and look for lost work. Raises what the broker raises."""
    async_task(HEARTBEAT, q_options={"save": False})  # every few seconds: no result row for each


def request_ask() -> None:
    """Have the worker, which has just started, ask all servers what they hold. Raises what the broker raises."""
    async_task(ASK_ALL)
