"""Containers, their limits, and the jobs that register, suspend or remove them."""

from decimal import Decimal

from django.conf import settings
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from servers.models.fields import MessageField, known
from servers.models.servers import Server

GPUS = r"^(all|none|[0-9]{1,2}(,[0-9]{1,2})*)?\Z"


class Container(models.Model):
    """One person's container on one server, as the server last reported it."""

    class State(models.TextChoices):
        RUNNING = "running"
        STOPPED = "stopped"
        REGISTERING = "registering"
        BROKEN = "broken"
        UNKNOWN = "unknown"

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="containers")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="containers", verbose_name="person"
    )
    state = models.CharField(max_length=16, choices=State.choices, default=State.UNKNOWN)
    address = models.CharField(max_length=45, blank=True)
    last_seen = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["server", "user"]
        constraints = [
            models.UniqueConstraint(fields=["server", "user"], name="container_once_per_server"),
            known("container_state_is_known", state=["running", "stopped", "registering", "broken", "unknown"]),
        ]

    def __str__(self) -> str:
        return f"{self.user} on {self.server}"


class Limits(models.Model):
    """What containers may use; a blank person or server means all. The most specific row wins, value by value."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="limits",
        verbose_name="person",
        null=True,
        blank=True,
        help_text="Blank: everybody.",
    )
    server = models.ForeignKey(
        Server, on_delete=models.CASCADE, related_name="limits", null=True, blank=True, help_text="Blank: every server."
    )
    memory = models.PositiveIntegerField("memory (GB)", null=True, blank=True, validators=[MinValueValidator(1)])
    cpus = models.DecimalField(
        "CPUs", max_digits=6, decimal_places=2, null=True, blank=True, validators=[MinValueValidator(Decimal("0.1"))]
    )
    processes = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(64)])
    gpus = models.CharField(
        "GPUs",
        max_length=191,
        blank=True,
        validators=[RegexValidator(GPUS, "Write all, none, or numbers like 0,1.")],
        help_text="all, none, or numbers of device nodes: 0,1 for /dev/nvidia0 and /dev/nvidia1",
    )
    disk = models.PositiveIntegerField(
        "disk (GB)",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Shown to the person; this version of the host programs does not enforce it.",
    )

    class Meta:
        verbose_name = "limits"
        verbose_name_plural = "limits"
        ordering = ["user", "server"]
        constraints = [
            # Null is not equal to null in a database, so each shape has a constraint of its own.
            models.UniqueConstraint(fields=["user", "server"], name="limits_once_per_container"),
            models.UniqueConstraint(fields=["user"], condition=Q(server=None), name="limits_once_per_person"),
            models.UniqueConstraint(fields=["server"], condition=Q(user=None), name="limits_once_per_server"),
            models.UniqueConstraint(
                models.Value(1), condition=Q(user=None, server=None), name="limits_once_for_everybody"
            ),
            models.CheckConstraint(condition=Q(gpus__regex=GPUS), name="limits_gpus_are_numbers"),
        ]

    def __str__(self) -> str:
        return f"{self.user or 'everybody'} on {self.server or 'every server'}"


class ContainerJob(models.Model):
    """A request to register, suspend or remove a person's container on a server, and its outcome."""

    class Kind(models.TextChoices):
        REGISTER = "register"
        REMOVE = "remove"
        SUSPEND = "suspend"

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="container_jobs")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="container_jobs", verbose_name="person"
    )
    kind = models.CharField(max_length=16, choices=Kind.choices, default=Kind.REGISTER)
    purge = models.BooleanField(default=False, help_text="Remove only: delete the files and snapshots as well.")
    state = models.CharField(max_length=16, choices=State.choices, default=State.QUEUED)
    requested_by = models.CharField(max_length=64)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt = models.DateTimeField("next retry", null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    lease_holder = models.CharField(max_length=64, blank=True)
    log = models.TextField(blank=True)
    error = MessageField()
    created_at = models.DateTimeField("requested", default=timezone.now)
    started_at = models.DateTimeField("started", null=True, blank=True)
    finished_at = models.DateTimeField("finished", null=True, blank=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["server", "user"], condition=Q(state__in=["queued", "running"]), name="container_job_open_once"
            ),
            known("container_job_state_is_known", state=["queued", "running", "succeeded", "failed"]),
            models.CheckConstraint(
                condition=Q(kind="remove") | Q(kind__in=["register", "suspend"], purge=False),
                name="container_job_kind_is_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.user} on {self.server} ({self.state})"
