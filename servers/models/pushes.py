"""What the servers have said of the keys that they hold, and pushes that wait for a person's word."""

import hashlib
import json

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from servers.models.fields import MessageField
from servers.models.servers import Server


class Confirmation(models.Model):
    """A server's word that it holds the keys of this revision, and when it first gave it."""

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="confirmations")
    revision = models.PositiveBigIntegerField()
    confirmed_at = models.DateTimeField()

    class Meta:
        ordering = ["server", "revision"]
        constraints = [models.UniqueConstraint(fields=["server", "revision"], name="confirmation_once")]

    def __str__(self) -> str:
        return f"{self.server} holds revision {self.revision}"


class Placement(models.Model):
    """What a server said of one person's two key files there. Without a row she has neither.

    `kept_revision`: while a file cannot be written, the last revision of which both were; 0 if never.
    """

    class State(models.TextChoices):
        GOOD = "good"
        FAILED = "failed"
        ABSENT = "absent"

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="placements")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="placements", verbose_name="person"
    )
    host = models.CharField("host account", max_length=8, choices=State.choices)
    host_since = models.DateTimeField()
    container = models.CharField(max_length=8, choices=State.choices)
    container_since = models.DateTimeField()
    error = MessageField()
    kept_revision = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ["server", "user"]
        constraints = [
            models.UniqueConstraint(fields=["server", "user"], name="placement_once_per_server"),
            models.CheckConstraint(
                condition=Q(host__in=["good", "failed", "absent"], container__in=["good", "failed", "absent"]),
                name="placement_states_are_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} on {self.server}: host {self.host}, container {self.container}"

    @property
    def failed(self) -> bool:
        return self.State.FAILED in (self.host, self.container)


class KeySnapshot(models.Model):
    """All keys of one digest, so that a later push can be compared with what a server holds.

    `people` is compressed JSON: name to a list of short key digests; see services/guards.py.
    """

    digest = models.CharField(max_length=64, primary_key=True)
    revision = models.PositiveBigIntegerField()
    people = models.BinaryField()

    def __str__(self) -> str:
        return f"keys of revision {self.revision}"


class HeldBackPush(models.Model):
    """A push that would take many keys away, held back until a person of the staff has decided."""

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
    gone = models.JSONField(help_text="Name to the short digests of the keys that would go.")
    people = models.PositiveIntegerField("people affected")
    keys = models.PositiveIntegerField("keys that would go")
    of_keys = models.PositiveIntegerField("keys there")
    created_at = models.DateTimeField("held back since", default=timezone.now)
    decided_by = models.CharField(max_length=64, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "held-back push"
        verbose_name_plural = "held-back pushes"
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(fields=["server"], condition=Q(state="waiting"), name="held_back_push_waits_once"),
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "confirmed", "applied", "superseded"]),
                name="held_back_push_state_is_known",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "superseded"]) | (~Q(decided_by="") & Q(decided_at__isnull=False)),
                name="held_back_push_confirmed_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.keys} keys of {self.people} people on {self.server} ({self.state})"

    @property
    def percent(self) -> int:
        return round(100 * self.keys / self.of_keys) if self.of_keys else 0

    @property
    def mark(self) -> str:
        """Stands for exactly what would go: who confirms has seen this and nothing else."""
        return hashlib.sha256(json.dumps(self.gone, sort_keys=True).encode()).hexdigest()[:16]
