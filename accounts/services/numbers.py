"""Issue ports and blocks of subordinate ids, each once and to one person."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from accounts.models import Port, SubuidRange, User
from accounts.numbers import NumberRange
from accounts.services import audit, revision


class NumbersExhausted(Exception):
    """No free number is left; the message names the setting to widen."""


@dataclass(frozen=True)
class NumbersLeft:
    ports: int
    subuids: int


@transaction.atomic
def assign(user: User) -> tuple[Port, SubuidRange]:
    """Return the person's port and block; issue them if there are none yet. Raises NumbersExhausted.

    Of concurrent sign-ins, only the one that holds the lock of the revision's row looks for a free number.
    """
    revision.lock()
    port = Port.objects.filter(user=user).first()
    block = SubuidRange.objects.filter(user=user).first()
    if port is not None and block is not None:
        return port, block
    port = port or Port.objects.create(number=_free_port(), user=user, username=user.username)
    block = block or SubuidRange.objects.create(start=_free_block(), user=user, username=user.username)
    detail = {"port": port.number, "subuid": block.start}
    if user.ssh_keys.active().exists():
        detail["revision"] = revision.increment([user])  # without a port, servers held none of these keys
    audit.record(actor=user.username, verb="numbers.issued", object=user.username, detail=detail)
    return port, block


def left() -> NumbersLeft:
    ports, blocks = _issued()
    return NumbersLeft(settings.LAB_PORTS.count_free(ports), settings.LAB_SUBUIDS.count_free(blocks))


def _issued() -> tuple[list[int], list[int]]:
    return (
        list(Port.objects.values_list("number", flat=True)),
        list(SubuidRange.objects.values_list("start", flat=True)),
    )


def _free(numbers: NumberRange, issued: QuerySet[Any, int]) -> int | None:
    """The next one after the highest; gaps are filled only at the end of the range."""
    highest = issued.filter(pk__lte=numbers.last).order_by("-pk").first()
    following = numbers.next_after(highest)
    return following if following is not None else numbers.first_free(issued)


def _free_port() -> int:
    number = _free(settings.LAB_PORTS, Port.objects.values_list("number", flat=True))
    if number is None:
        raise NumbersExhausted(f"All ports of {settings.LAB_PORTS} are issued. Ask the lab's staff to widen LAB_PORTS.")
    return number


def _free_block() -> int:
    start = _free(settings.LAB_SUBUIDS, SubuidRange.objects.values_list("start", flat=True))
    if start is None:
        raise NumbersExhausted(
            f"All subordinate ids of {settings.LAB_SUBUIDS} are issued. Ask the lab's staff to widen LAB_SUBUIDS."
        )
    return start
