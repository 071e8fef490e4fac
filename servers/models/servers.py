"""Servers, their containers and limits, jobs and pushes."""

from decimal import Decimal

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from servers.models.fields import MessageField
from servers.ssh import host_keys

NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"  # $ would allow a line break at the end
GPUS = r"^(all|none|[0-9]{1,2}(,[0-9]{1,2})*)?\Z"
ADDRESS = r"^[A-Za-z0-9]([A-Za-z0-9_.:-]{0,251}[A-Za-z0-9])?\Z"


class Server(models.Model):
    """A GPU machine. `lease_until` is the claim of the one worker that serves it at a time."""

    name = models.CharField(
        max_length=63,
        unique=True,
        validators=[RegexValidator(NAME, "Use lower-case letters, digits and -, like gpu17.")],
    )
    address = models.CharField(
        max_length=253,
        validators=[RegexValidator(ADDRESS, "Write an IP address or a DNS name.")],
        help_text="IP address or DNS name at which people and the portal reach it.",
    )
    ssh_port = models.PositiveIntegerField(
        "SSH port", default=22, validators=[MinValueValidator(1), MaxValueValidator(65535)]
    )
    host_key = models.TextField(blank=True, help_text="Pinned: type and blob. Blank until it is accepted.")
    offered_host_key = models.TextField(blank=True, help_text="The one that was shown instead of the pinned one.")
    token_digest = models.CharField(max_length=64, blank=True)
    enabled = models.BooleanField(default=True)
    applied_revision = models.PositiveBigIntegerField(default=0)
    applied_digest = models.CharField(max_length=64, blank=True)
    attempted_revision = models.PositiveBigIntegerField(default=0)
    attempted_at = models.DateTimeField("last attempt", null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0, help_text="Failed or unfinished since the last success.")
    next_attempt = models.DateTimeField("next try", null=True, blank=True)
    behind_since = models.DateTimeField(null=True, blank=True)
    last_contact = models.DateTimeField(null=True, blank=True)
    last_error = MessageField()
    lease_until = models.DateTimeField(null=True, blank=True)
    register_outcome = models.CharField(max_length=16, blank=True, help_text="Of the last push: register's key file.")
    register_since = models.DateTimeField(null=True, blank=True)
    reported_revision = models.PositiveBigIntegerField(default=0, help_text="What it last said that it holds.")
    ahead_since = models.DateTimeField(null=True, blank=True, help_text="Since when it refuses our older state.")
    inspected_at = models.DateTimeField(null=True, blank=True)
    lease_holder = models.CharField(max_length=64, blank=True, help_text="The process that serves it.")
    labhost_version = models.CharField("host programs", max_length=40, blank=True)
    driver_version = models.CharField("NVIDIA driver", max_length=40, blank=True)
    storage = models.CharField(max_length=40, blank=True, help_text="How new containers get their files there.")

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                # -manage belongs to the aliases in people's ~/.ssh/config
                condition=Q(name__regex=NAME) & ~Q(name__endswith="-manage"),
                name="server_name_is_hostname",
                violation_error_message="A server's name is like gpu17, and does not end in -manage.",
            ),
            models.CheckConstraint(condition=Q(address__regex=ADDRESS), name="server_address_is_one_word"),
            models.CheckConstraint(condition=Q(ssh_port__range=(1, 65535)), name="server_ssh_port_is_a_port"),
            models.UniqueConstraint(
                fields=["address", "ssh_port"],
                name="server_address_once",
                violation_error_message="Another server has this address and port.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def fingerprint(self) -> str:
        return host_keys.fingerprint(self.host_key)

    @property
    def offered_fingerprint(self) -> str:
        return host_keys.fingerprint(self.offered_host_key)


class Container(models.Model):
    """One person's container on one server, as the server last told."""

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
            models.CheckConstraint(
                condition=Q(state__in=["running", "stopped", "registering", "broken", "unknown"]),
                name="container_state_is_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} on {self.server}"


class Limits(models.Model):
    """What containers may use. Without a person it is for everybody, without a server for every server.

    Where several rows speak of one container the closest wins, value by value (see services/limits.py).
    """

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
        Server,
        on_delete=models.CASCADE,
        related_name="limits",
        null=True,
        blank=True,
        help_text="Blank: every server.",
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


class Push(models.Model):
    """One push of all keys to one server, asked for (queued) or made."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        PARTIAL = "partial"
        FAILED = "failed"

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="pushes")
    state = models.CharField(max_length=16, choices=State.choices, default=State.QUEUED)
    revision = models.PositiveBigIntegerField(default=0)
    trigger = models.CharField(max_length=64, help_text="Who or what asked for it.")
    created_at = models.DateTimeField("asked for", default=timezone.now)
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
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running", "succeeded", "partial", "failed"]),
                name="push_state_is_known",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running"], finished_at__isnull=True)
                | Q(state__in=["succeeded", "partial", "failed"], finished_at__isnull=False),
                name="push_finished_has_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"push to {self.server} ({self.state})"


class ContainerJob(models.Model):
    """One order to make, remove or suspend a person's container on a server, and what became of it."""

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
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="container_jobs",
        verbose_name="person",
    )
    kind = models.CharField(max_length=16, choices=Kind.choices, default=Kind.REGISTER)
    purge = models.BooleanField(default=False, help_text="Removal: are the files deleted as well?")
    state = models.CharField(max_length=16, choices=State.choices, default=State.QUEUED)
    requested_by = models.CharField(max_length=64)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt = models.DateTimeField("next try", null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    lease_holder = models.CharField(max_length=64, blank=True)
    log = models.TextField(blank=True)
    error = MessageField()
    created_at = models.DateTimeField("asked for", default=timezone.now)
    started_at = models.DateTimeField("started", null=True, blank=True)
    finished_at = models.DateTimeField("finished", null=True, blank=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["server", "user"],
                condition=Q(state__in=["queued", "running"]),
                name="container_job_open_once",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running", "succeeded", "failed"]),
                name="container_job_state_is_known",
            ),
            models.CheckConstraint(
                condition=Q(kind="remove") | Q(kind__in=["register", "suspend"], purge=False),
                name="container_job_kind_is_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.user} on {self.server} ({self.state})"


class Worker(models.Model):
    """One row: the worker's sign of life, and the revision for which it last asked for full names."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    seen_at = models.DateTimeField(null=True, blank=True)
    names_revision = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="worker_is_one_row")]

    def __str__(self) -> str:
        return f"worker, seen {self.seen_at}"
