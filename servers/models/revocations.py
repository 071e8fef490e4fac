"""Keys that staff revoked by hand on a server, while the portal did not answer."""

from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import SSHKey
from servers.models.fields import known
from servers.models.servers import Server


class HandRevocation(models.Model):
    """A server reports that its staff revoked this key there, and what the portal did about it.

    `is_listed`: the server still reports it. It stops when a push has told it that the portal has dealt with the key.
    """

    class State(models.TextChoices):
        WAITING = "waiting"
        REMOVED = "removed"
        KEPT = "kept"

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="hand_revocations")
    key = models.ForeignKey(SSHKey, on_delete=models.CASCADE, related_name="hand_revocations")
    state = models.CharField(max_length=8, choices=State.choices, default=State.WAITING)
    is_listed = models.BooleanField("reported", default=True)
    revoked_at = models.DateTimeField("revoked there", null=True, blank=True)
    created_at = models.DateTimeField("first reported", default=timezone.now)
    decided_by = models.CharField(max_length=64, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "key revoked on a server"
        verbose_name_plural = "keys revoked on servers"
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["server", "key"], condition=Q(is_listed=True), name="hand_revocation_listed_once"
            ),
            known("hand_revocation_state_is_known", state=["waiting", "removed", "kept"]),
            models.CheckConstraint(
                condition=Q(state="waiting") | (~Q(decided_by="") & Q(decided_at__isnull=False)),
                name="hand_revocation_decided_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key} on {self.server} ({self.state})"
