"""What the apps show on the first page of the administration, without lab_iam knowing the apps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest


@dataclass(frozen=True)
class Figure:
    """One number with its name. `tone` is "", "good", "warn" or "bad"."""

    label: str
    value: int | str
    url: str = ""
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Panel:
    """A section: figures, and below them an own template rendered with `context` if one is named."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    template: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)


PanelMaker = Callable[[HttpRequest], Panel]
_makers: dict[int, PanelMaker] = {}


def register(maker: PanelMaker, *, position: int) -> None:
    """Show what `maker` gives at this position (accounts is 10, servers is 20); for AppConfig.ready."""
    _makers[position] = maker


def panels(request: HttpRequest) -> list[Panel]:
    return [_makers[position](request) for position in sorted(_makers)]
