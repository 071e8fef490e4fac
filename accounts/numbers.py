"""Ranges of numbers that are issued once and never again: SSH ports and blocks of subordinate ids."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

SUBUID_COUNT = 65536
HIGHEST_ID = 2**32 - 2  # (uid_t) -1 means "no id", see chown(2)


@dataclass(frozen=True)
class NumberRange:
    """The numbers first..last, both included, issued in blocks of `size` that start at `first`."""

    first: int
    last: int
    size: int = 1

    def __post_init__(self) -> None:
        if self.size < 1 or self.first < 0 or self.last - self.first + 1 < self.size:
            raise ValueError(f"the range {self} does not hold a single block of {self.size}")

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    @classmethod
    def parse(cls, text: str, size: int = 1) -> NumberRange:
        """Read "FIRST-LAST" in decimal; raises ValueError."""
        match = re.fullmatch(r"([0-9]{1,10})-([0-9]{1,10})", text.strip(), re.ASCII)
        if match is None:
            raise ValueError(f"{text!r} is not a range: write FIRST-LAST, for example 22000-29999")
        return cls(int(match[1]), int(match[2]), size)

    @property
    def blocks(self) -> int:
        return (self.last - self.first + 1) // self.size

    def overlaps(self, start: int) -> bool:
        return start <= self.last and start + self.size > self.first

    def next_after(self, highest: int | None) -> int | None:
        """The first block above `highest`, the highest block ever issued up to `last`; None if there is none."""
        if highest is None or highest + self.size <= self.first:
            return self.first
        steps = -(-(highest + self.size - self.first) // self.size)
        candidate = self.first + steps * self.size
        return candidate if candidate + self.size - 1 <= self.last else None

    def first_free(self, issued: Iterable[int]) -> int | None:
        """The lowest block that shares no number with any issued one, wherever that begins; None if there is none."""
        candidate = self.first
        for start in sorted(issued):
            if start + self.size <= candidate:
                continue
            if start >= candidate + self.size:
                break
            if (following := self.next_after(start)) is None:
                return None
            candidate = following
        return candidate if candidate + self.size - 1 <= self.last else None

    def count_free(self, issued: Iterable[int]) -> int:
        """How many blocks of this range touch none of the issued blocks."""
        touched: set[int] = set()
        for start in issued:
            if self.overlaps(start):
                touched.add(max(start - self.first, 0) // self.size)
                touched.add(min(start + self.size - 1 - self.first, self.last - self.first) // self.size)
        return self.blocks - sum(1 for block in touched if block < self.blocks)
