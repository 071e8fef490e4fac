"""What a container may use: read from the rows that apply to it, changed by staff, sent to servers as text."""

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Q

from accounts.models import User
from accounts.services import audit
from servers.models import Limits, Server

VALUES = ("memory", "cpus", "processes", "gpus", "disk")
NO_LIMIT = {"gpus": "all"}  # as the host programs call it; "max" for the others
GIGABYTE = 1 << 30


@dataclass(frozen=True)
class Effective:
    """The values that apply to one container; None or "" means no limit."""

    memory: int | None
    cpus: Any
    processes: int | None
    gpus: str
    disk: int | None


def of(user: User, server: Server) -> Effective:
    """The closest row wins, value by value: this container, then the person, then the server, then everybody."""
    rows = Limits.objects.filter(Q(user=user) | Q(user=None), Q(server=server) | Q(server=None))
    closest = sorted(rows, key=lambda row: (row.user_id is None, row.server_id is None))
    found: dict[str, Any] = {
        name: next((value for row in closest if (value := getattr(row, name)) not in (None, "")), None)
        for name in VALUES
    }
    return Effective(**found | {"gpus": found["gpus"] or ""})


def text(limits: Effective) -> str:
    """`key=value` lines for the host programs: every key, memory and disk in bytes."""
    values = vars(limits) | {
        "memory": limits.memory and limits.memory * GIGABYTE,
        "cpus": limits.cpus and format(limits.cpus, "f"),
        "disk": limits.disk and limits.disk * GIGABYTE,
    }
    return "".join(f"{name}={values[name] or NO_LIMIT.get(name, 'max')}\n" for name in VALUES)


def save(*, actor: str, limits: Limits) -> None:
    """Save a new or changed row. Containers get it at their next start."""
    values = {name: str(value) for name in VALUES if (value := getattr(limits, name)) not in (None, "")}
    with transaction.atomic():
        limits.save()
        audit.record(actor=actor, verb="limits.set", object=str(limits), detail=values)


def remove(*, actor: str, limits: Limits) -> None:
    with transaction.atomic():
        audit.record(actor=actor, verb="limits.removed", object=str(limits), detail={})
        limits.delete()
