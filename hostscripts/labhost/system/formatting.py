"""Sizes, ages and tables for people. Pure: nothing is read or written here."""

import time
from collections.abc import Sequence

_UNITS = ("B", "KB", "MB", "GB", "TB")


def size(number: float) -> str:
    """Bytes in the largest unit in which they are at least 1: 12.3 GB (1 KB = 1024 B)."""
    unit = 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number /= 1024
        unit += 1
    return f"{number:.0f} {_UNITS[unit]}" if number >= 100 or number == int(number) else f"{number:.1f} {_UNITS[unit]}"


def age(then: float, now: float | None = None) -> str:
    """How long ago a time (seconds since the epoch) was, in its largest unit."""
    seconds = max(0, int((time.time() if now is None else now) - then))
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def moment(then: float) -> str:
    """A time in the server's time zone, and its age."""
    return f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(then))}, {age(then)}"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines with aligned columns; columns of numbers are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(heads), *cells]) for column in range(len(heads))]
    right = [bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(heads))]
    layout = "  ".join(f"{{:{'>' if to_right else '<'}{width}}}" for width, to_right in zip(widths, right, strict=True))
    return [layout.format(*row).rstrip() for row in [list(heads), *cells]]
