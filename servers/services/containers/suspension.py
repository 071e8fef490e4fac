"""Suspend the containers of people who are locked out."""

import logging
from datetime import timedelta

from django.utils import timezone

from accounts.models import User
from servers.models import Container, ContainerJob
from servers.protocol import Message
from servers.services.containers import jobs
from servers.services.containers.jobs import JobRefused

log = logging.getLogger(__name__)
PAUSE = timedelta(hours=1)  # before a lost suspension is queued again
Kind, State = ContainerJob.Kind, ContainerJob.State


def suspend_everywhere(*, actor: str, user: User) -> list[ContainerJob]:
    """Queue a suspension on every server where this person has a container, also out of service; returns the jobs.

    A queued registration is cancelled. A running one ends in a container that accepts no key.
    """
    jobs.fail(ContainerJob.objects.filter(user=user, state=State.QUEUED, kind=Kind.REGISTER), Message("locked_out"))
    queued = []
    for container in Container.objects.filter(user=user).select_related("server"):
        try:
            queued.append(jobs.enqueue(actor=actor, server=container.server, user=user, kind=Kind.SUSPEND))
        except JobRefused as refused:
            log.warning("%s", refused)  # it is already being removed
    return queued


def recover_lost(*, actor: str) -> int:
    """Suspend people who are locked out and whose container runs, unless a job is recent. Returns how many jobs."""
    recent = timezone.now() - PAUSE
    count = 0
    for row in Container.objects.filter(user__is_active=False, state=Container.State.RUNNING):
        known = ContainerJob.objects.filter(server=row.server_id, user=row.user_id, kind=Kind.SUSPEND)
        if not known.filter(created_at__gt=recent).exists():
            count += len(suspend_everywhere(actor=actor, user=row.user))
    return count
