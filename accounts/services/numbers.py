"""Issue ports and blocks of subordinate ids, each once and to one person."""

from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from accounts.models import Port, SubuidRange, User
from accounts.services import audit, revision


class NumbersExhausted(Exception):
    """No free number is left; the message names the setting to widen."""


@transaction.atomic
def assign(user: User) -> tuple[Port, SubuidRange]:
    """The person's port and block, issued under the revision's lock if there are none yet. Raises NumbersExhausted."""
    revision.lock()
    port = Port.objects.filter(user=user).first()
    block = SubuidRange.objects.filter(user=user).first()
    if port is not None and block is not None:
        return port, block
    port = port or Port.objects.create(number=_free(Port, "ports", "LAB_PORTS"), user=user, username=user.username)
    if block is None:
        start = _free(SubuidRange, "subordinate ids", "LAB_SUBUIDS")
        block = SubuidRange.objects.create(start=start, user=user, username=user.username)
    detail = {"port": port.number, "subuid": block.start}
    if user.ssh_keys.active().exists():
        detail["revision"] = revision.increment([user])  # without a port, servers held none of these keys
    audit.record(actor=user.username, verb="numbers.issued", object=user.username, detail=detail)
    return port, block


def left() -> tuple[int, int]:
    """The numbers of free ports and ranges of subordinate ids."""
    return settings.LAB_PORTS.count_free(_issued(Port)), settings.LAB_SUBUIDS.count_free(_issued(SubuidRange))


def _issued(model: type[Port | SubuidRange]) -> QuerySet[Any, int]:
    return model._default_manager.values_list("pk", flat=True)


def _free(model: type[Port | SubuidRange], what: str, setting: str) -> int:
    """The next number after the highest; gaps are filled only at the end of the range."""
    numbers, issued = getattr(settings, setting), _issued(model)
    number = numbers.next_after(issued.filter(pk__lte=numbers.last).order_by("-pk").first())
    number = number if number is not None else numbers.first_free(issued)
    if number is None:
        raise NumbersExhausted(f"All {what} of {numbers} are issued. Ask the lab's staff to widen {setting}.")
    return int(number)
