"""Order that a person's container is removed or suspended. Orders are carried out, and retried, by registration."""

import logging
from datetime import timedelta

from django.utils import timezone

from accounts.models import User
from servers.models import Container, ContainerJob, Server
from servers.services.containers import jobs
from servers.services.containers.jobs import JobRefused

log = logging.getLogger(__name__)
ORDERED_LATELY = timedelta(hours=1)
Kind, State = ContainerJob.Kind, ContainerJob.State


def request(*, actor: str, server: Server, user: User, purge: bool = False) -> ContainerJob:
    """Order it, or give the open order: also for somebody who is locked out. Raises RegistrationRefused.

    The files are kept on the server unless `purge`. While the server is away, the order waits for it.
    """
    if not server.enabled:
        raise JobRefused(f"{server.name} is disabled: enable it first.")
    return jobs.enqueue_job(actor=actor, server=server, user=user, kind=ContainerJob.Kind.REMOVE, purge=purge)


def suspend_everywhere(*, actor: str, user: User) -> list[ContainerJob]:
    """Order it on every server where this person, who was locked out, has a container. The orders are its receipt.

    Disabled servers too. A registration that waits is called off; one that runs is met
    by the keys that are gone.
    """
    waiting = ContainerJob.objects.filter(user=user, state=State.QUEUED, kind=Kind.REGISTER)
    waiting.update(state=State.FAILED, finished_at=timezone.now(), error="The person was locked out.")
    orders = []
    for container in Container.objects.filter(user=user).select_related("server"):
        try:
            orders.append(jobs.enqueue_job(actor=actor, server=container.server, user=user, kind=Kind.SUSPEND))
        except JobRefused as refused:
            log.warning("%s", refused)  # it is being removed already
    return orders


def suspend_forgotten(*, actor: str) -> int:
    """The same for whoever is locked out and still runs, unless that was ordered lately. Gives how many orders."""
    lately = timezone.now() - ORDERED_LATELY
    orders = 0
    for row in Container.objects.filter(user__is_active=False, state=Container.State.RUNNING):
        known = ContainerJob.objects.filter(server=row.server_id, user=row.user_id, kind=Kind.SUSPEND)
        if not known.filter(created_at__gt=lately).exists():
            orders += len(suspend_everywhere(actor=actor, user=row.user))
    return orders
