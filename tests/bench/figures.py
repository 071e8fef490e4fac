"""Medians with their spread, and their output."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """Seconds (or other units) of several runs."""

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.runs), max(self.runs)

    def __str__(self) -> str:
        low, high = self.spread
        return f"{self.median:.3f}  ({low:.3f} - {high:.3f}, {len(self.runs)} runs)"


def figure(runs: Sequence[float]) -> Figure:
    return Figure(tuple(runs))


def ratio(of: Figure, floor: Figure) -> Figure:
    """Each run divided by its own floor: a slow machine slows down both."""
    return figure([run / beside for run, beside in zip(of.runs, floor.runs, strict=True)])
