"""Writing the audit log."""

from typing import Any

from accounts.models import AuditEvent


def record(*, actor: str, verb: str, object: str, detail: dict[str, Any] | None = None) -> AuditEvent:
    """Write what happened. Never put a password, a token or a private key into `detail`."""
    return AuditEvent.objects.create(actor=actor, verb=verb, object=object, detail=detail or {})
