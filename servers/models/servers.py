"""Servers: how staff configured them, and what the portal knows of them."""

from collections.abc import Iterable
from typing import Any, ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models, transaction
from django.db.models import Q

from servers.models.fields import MessageField
from servers.ssh import host_keys

NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"  # $ would allow a line break at the end
ADDRESS = r"^[A-Za-z0-9]([A-Za-z0-9_.:-]{0,251}[A-Za-z0-9])?\Z"


class ServerQuerySet(models.QuerySet["Server"]):
    def in_service(self) -> "ServerQuerySet":
        return self.filter(enabled=True)

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        with transaction.atomic():
            created = super().bulk_create(objs, *args, **kwargs)
            ServerState.objects.bulk_create(ServerState(server=server) for server in created)
        return created


class ServerManager(models.Manager.from_queryset(ServerQuerySet)):  # type: ignore[misc]
    """Loads each server together with its state."""

    def get_queryset(self) -> ServerQuerySet:
        return ServerQuerySet(self.model, using=self._db).select_related("state")


class Server(models.Model):
    """A GPU server as staff configured it; `state` is what the portal knows of it."""

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
    offered_host_key = models.TextField("new host key", blank=True, help_text="Shown instead of the pinned one.")
    token_digest = models.CharField(max_length=64, blank=True)
    next_token_digest = models.CharField(max_length=64, blank=True)  # of a deployment that has not finished
    enabled = models.BooleanField("in service", default=True)

    objects: ClassVar[ServerManager] = ServerManager()

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

    def save(self, *args: Any, **kwargs: Any) -> None:
        is_new = self._state.adding
        with transaction.atomic():
            super().save(*args, **kwargs)
            if is_new:
                ServerState.objects.create(server=self)

    @property
    def fingerprint(self) -> str:
        return host_keys.fingerprint(self.host_key)

    @property
    def offered_fingerprint(self) -> str:
        return host_keys.fingerprint(self.offered_host_key)


class ServerState(models.Model):
    """What a server holds as far as the portal knows, and the work under way there; one row per server.

    `lease_until` is the claim of the worker process that serves the server. `unconfirmed_first` and
    `unconfirmed_last` bound the revisions that were sent since the last confirmation: the server may hold
    any of them. Null if nothing was sent.
    """

    server = models.OneToOneField(Server, on_delete=models.CASCADE, primary_key=True, related_name="state")
    applied_revision = models.PositiveBigIntegerField(default=0, help_text="The last one that it confirmed.")
    applied_digest = models.CharField(max_length=64, blank=True)
    unconfirmed_first = models.PositiveBigIntegerField(null=True, blank=True)
    unconfirmed_last = models.PositiveBigIntegerField(null=True, blank=True)
    attempted_revision = models.PositiveBigIntegerField(default=0)
    attempted_at = models.DateTimeField("last attempt", null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0, help_text="Failed or unfinished since the last success.")
    next_attempt = models.DateTimeField("next retry", null=True, blank=True)
    behind_since = models.DateTimeField(null=True, blank=True)
    last_contact = models.DateTimeField(null=True, blank=True)
    last_error = MessageField()
    lease_until = models.DateTimeField(null=True, blank=True)
    lease_holder = models.CharField(max_length=64, blank=True, help_text="The process that serves it.")
    register_outcome = models.CharField(max_length=16, blank=True, help_text="Of the last push: register's key file.")
    register_since = models.DateTimeField(null=True, blank=True)
    reported_revision = models.PositiveBigIntegerField(default=0, help_text="The one that it last reported.")
    ahead_since = models.DateTimeField(
        null=True, blank=True, help_text="Since when it has had a revision that is not in this database."
    )
    adopted_id = models.CharField(max_length=32, blank=True, help_text="Staff let the portal replace this revision.")
    inspected_at = models.DateTimeField(null=True, blank=True)
    labhost_version = models.CharField("version of the host programs", max_length=40, blank=True)
    labhost_build = models.CharField(max_length=12, blank=True, help_text="Identifies their files.")
    driver_version = models.CharField("NVIDIA driver", max_length=40, blank=True)
    storage = models.CharField(max_length=40, blank=True, help_text="How new containers get their files there.")
    disks = models.JSONField(default=dict, blank=True, help_text="Their free space, by name; see servers/disks.py.")

    class Meta:
        verbose_name = "server state"
        constraints = [
            models.CheckConstraint(
                condition=Q(unconfirmed_first__isnull=True, unconfirmed_last__isnull=True)
                | Q(unconfirmed_first__lte=models.F("unconfirmed_last")),
                name="server_state_unconfirmed_is_a_range",
            )
        ]

    def __str__(self) -> str:
        return f"state of {self.server}"

    @property
    def held_revision(self) -> int:
        """The revision whose keys the server confirmed; 0 if it never did, or is ahead of the database."""
        return 0 if self.ahead_since else self.cleared_revision

    @property
    def cleared_revision(self) -> int:
        """The revision of which the server confirmed that it holds no other keys; 0 if it never did."""
        return self.applied_revision if self.applied_digest else 0

    def possible_revisions(self) -> list[tuple[int, int]]:
        """First and last of the revisions that the server may hold: the confirmed one, then the unconfirmed ones."""
        held = [(self.cleared_revision, self.cleared_revision)]
        if self.unconfirmed_first is None or self.unconfirmed_last is None:
            return held
        return [*held, (self.unconfirmed_first, self.unconfirmed_last)]
