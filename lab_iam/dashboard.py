"""The sections of the admin's first page; the apps register theirs, so lab_iam does not know the apps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest


@dataclass(frozen=True)
class Metric:
    """One number with its label. `tone` is "", "good", "warn" or "bad"."""

    label: str
    value: int | str
    url: str = ""
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Section:
    """A titled group of metrics, followed by `template` rendered with `context` if there is one."""

    title: str
    metrics: list[Metric] = field(default_factory=list)
    template: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)


SectionBuilder = Callable[[HttpRequest], Section]
_builders: dict[int, SectionBuilder] = {}


def register(builder: SectionBuilder, *, position: int) -> None:
    """Show this section at `position` (accounts is 10, servers is 20). Call it from AppConfig.ready."""
    _builders[position] = builder


def sections(request: HttpRequest) -> list[Section]:
    return [_builders[position](request) for position in sorted(_builders)]
