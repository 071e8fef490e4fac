"""Connects signals, checks and the dashboard at start-up."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ServersConfig(AppConfig):
    name = "servers"
    verbose_name = "Servers and containers"

    def ready(self) -> None:
        from django_q.signals import post_spawn

        from accounts.signals import keys_changed, locked_out
        from lab_iam import dashboard
        from servers import checks  # noqa: F401  registers the checks
        from servers.dashboard import servers_section

        post_spawn.connect(_prepare_worker, dispatch_uid="servers.prepare_worker")
        keys_changed.connect(_wake_worker, dispatch_uid="servers.wake_worker")
        locked_out.connect(_suspend, dispatch_uid="servers.suspend")
        post_migrate.connect(_plan_reconcile, sender=self, dispatch_uid="servers.plan_reconcile")
        dashboard.register(servers_section, position=20)


def _prepare_worker(**_: Any) -> None:
    """Load Paramiko in each new worker process, before its first task."""
    from servers import tasks  # noqa: F401


def _wake_worker(**_: Any) -> None:
    from servers.services.worker import queue

    queue.enqueue(queue.PUSH)


def _suspend(user: Any, actor: str, **_: Any) -> None:
    from servers.services.containers import jobs

    jobs.suspend_everywhere(actor=actor, user=user)


def _plan_reconcile(**_: Any) -> None:
    from django_q.models import Schedule

    task = {"func": "servers.tasks.reconcile", "schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1}
    Schedule.objects.update_or_create(name="lab-iam reconcile", defaults=task)
