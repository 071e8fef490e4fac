"""Pushes of keys, pushes that are held back, and snapshots of the keys that servers hold."""

import hashlib
import json

from django.db import models
from django.db.models import Q
from django.utils import timezone

from servers.models.fields import MessageField, known
from servers.models.servers import Server


class Push(models.Model):
    """A push of keys to one server: queued, running or finished."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        PARTIAL = "partial"
        FAILED = "failed"

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="pushes")
    state = models.CharField(max_length=16, choices=State.choices, default=State.QUEUED)
    revision = models.PositiveBigIntegerField(default=0)
    trigger = models.CharField(max_length=64, help_text="Who or what requested it.")
    created_at = models.DateTimeField("requested", default=timezone.now)
    started_at = models.DateTimeField("started", null=True, blank=True)
    finished_at = models.DateTimeField("finished", null=True, blank=True)
    error = MessageField()
    results = models.JSONField(default=dict, blank=True, help_text="Of each person who has something there.")
    written = models.PositiveIntegerField(default=0)
    unchanged = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name = "push"
        verbose_name_plural = "pushes"
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(fields=["server"], condition=Q(state="queued"), name="push_queued_once"),
            models.UniqueConstraint(fields=["server"], condition=Q(state="running"), name="push_runs_once"),
            known("push_state_is_known", state=["queued", "running", "succeeded", "partial", "failed"]),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running"], finished_at__isnull=True)
                | Q(state__in=["succeeded", "partial", "failed"], finished_at__isnull=False),
                name="push_finished_has_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"push to {self.server} ({self.state})"


class HeldBackPush(models.Model):
    """A push that would remove many keys, held back until staff confirm it."""

    class State(models.TextChoices):
        WAITING = "waiting"
        CONFIRMED = "confirmed"
        APPLIED = "applied"
        SUPERSEDED = "superseded"

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="held_back_pushes")
    state = models.CharField(max_length=16, choices=State.choices, default=State.WAITING)
    base_digest = models.CharField(max_length=64)
    base_revision = models.PositiveBigIntegerField("revision there")
    revision = models.PositiveBigIntegerField("revision to push")
    removed_keys = models.JSONField(help_text="Name to the short digests of the keys that would be removed.")
    people_count = models.PositiveIntegerField("people affected")
    keys_count = models.PositiveIntegerField("keys to remove")
    keys_total = models.PositiveIntegerField("keys there")
    created_at = models.DateTimeField("held back since", default=timezone.now)
    decided_by = models.CharField(max_length=64, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "held-back push"
        verbose_name_plural = "held-back pushes"
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(fields=["server"], condition=Q(state="waiting"), name="held_back_push_waits_once"),
            known("held_back_push_state_is_known", state=["waiting", "confirmed", "applied", "superseded"]),
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "superseded"]) | (~Q(decided_by="") & Q(decided_at__isnull=False)),
                name="held_back_push_confirmed_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        keys = f"{self.keys_count} {'key' if self.keys_count == 1 else 'keys'}"
        people = f"{self.people_count} {'person' if self.people_count == 1 else 'people'}"
        return f"{keys} of {people} on {self.server} ({self.state})"

    @property
    def percent(self) -> int:
        return round(100 * self.keys_count / self.keys_total) if self.keys_total else 0

    @property
    def mark(self) -> str:
        """Identifies exactly the keys to remove, so that a confirmation covers nothing else."""
        return hashlib.sha256(json.dumps(self.removed_keys, sort_keys=True).encode()).hexdigest()[:16]


class KeySnapshot(models.Model):
    """All keys of one digest. `people` is compressed JSON: name to short key digests; see services/push/guard.py."""

    digest = models.CharField(max_length=64, primary_key=True)
    revision = models.PositiveBigIntegerField()
    people = models.BinaryField()

    def __str__(self) -> str:
        return f"keys of revision {self.revision}"
