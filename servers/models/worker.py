"""The worker's heartbeat."""

from django.db import models
from django.db.models import Q


class Worker(models.Model):
    """One row: the worker's last heartbeat, and the revision for which it last read full names."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    seen_at = models.DateTimeField(null=True, blank=True)
    names_revision = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="worker_is_one_row")]

    def __str__(self) -> str:
        return f"worker, seen {self.seen_at}"
