"""What servers confirmed: revisions, and each person's key files."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from servers.models.fields import MessageField, known
from servers.models.servers import Server


class Confirmation(models.Model):
    """A server confirmed that it holds the keys of this revision, and when it did so first."""

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="confirmations")
    revision = models.PositiveBigIntegerField()
    confirmed_at = models.DateTimeField()

    class Meta:
        ordering = ["server", "revision"]
        constraints = [models.UniqueConstraint(fields=["server", "revision"], name="confirmation_once")]

    def __str__(self) -> str:
        return f"{self.server} holds revision {self.revision}"


class PlacementQuerySet(models.QuerySet["Placement"]):
    def failed(self) -> "PlacementQuerySet":
        """Of people of whom a key file could not be written, or a key was refused."""
        failed = Q(host=Placement.State.FAILED) | Q(container=Placement.State.FAILED)
        return self.filter(failed | ~Q(refused={}))


class Placement(models.Model):
    """What a server reported of a person's two key files. Without a row the person has neither.

    `last_good_revision`: while a file cannot be written, the last revision at which both were; 0 if never.
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
    refused = models.JSONField(default=dict, blank=True, editable=False)  # fingerprint of a key -> a message as JSON
    last_good_revision = models.PositiveBigIntegerField(default=0)

    objects: ClassVar[PlacementQuerySet] = PlacementQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        ordering = ["server", "user"]
        constraints = [
            models.UniqueConstraint(fields=["server", "user"], name="placement_once_per_server"),
            known(
                "placement_states_are_known", host=["good", "failed", "absent"], container=["good", "failed", "absent"]
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} on {self.server}: host {self.host}, container {self.container}"

    @property
    def failed(self) -> bool:
        return self.State.FAILED in (self.host, self.container)
