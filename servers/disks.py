"""Free space on a server's disks, as it last reported it: checked, judged and put into words. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

NAMES = {"homes": "people's files", "state": "the host programs' state"}  # those that the portal knows
LOW, LOW_SHARE, SMALL_SHARE, LOW_INODES = 2 << 30, 0.02, 0.1, 0.05  # as hostscripts/labhost/host/disk_space.py
MOST = 2**62


@dataclass(frozen=True)
class Space:
    """Bytes; `inodes` is 0 on a file system without a fixed number of them."""

    size: int
    free: int
    inodes: int
    free_inodes: int

    @property
    def shortage(self) -> str:
        """What is low, in a few words; empty if there is enough."""
        low = []
        if self.free < max(self.size * LOW_SHARE, min(LOW, self.size * SMALL_SHARE)):
            low.append(f"{_gigabytes(self.free)} free")
        if self.inodes and self.free_inodes < self.inodes * LOW_INODES:
            low.append(f"{self.free_inodes} inodes free")
        return ", ".join(low)


def parse_disks(value: object) -> dict[str, Space]:
    """The disks of an answer or of a stored row, without any that are not well-formed."""
    items = value.items() if isinstance(value, dict) else ()
    return {name: space for name, item in items if name in NAMES and (space := _space(item)) is not None}


def _space(value: object) -> Space | None:
    numbers = [value.get(field.name) for field in fields(Space)] if isinstance(value, dict) else []
    if not numbers or not all(type(number) is int and 0 <= number <= MOST for number in numbers):
        return None
    return Space(*numbers)  # type: ignore[arg-type]


def as_json(disks: Mapping[str, Space]) -> dict[str, Any]:
    return {name: asdict(space) for name, space in disks.items()}


def shortages(value: object) -> list[str]:
    """Of a stored row, one text per disk that is low."""
    return [f"{NAMES[name]}: {space.shortage}" for name, space in parse_disks(value).items() if space.shortage]


def summary(value: object) -> str:
    """Of a stored row, one text for all disks; empty if they are not known."""
    return "; ".join(_texts(parse_disks(value)))


def _gigabytes(number: int) -> str:
    return f"{number / 2**30:.1f} GB"


def _texts(disks: Mapping[str, Space]) -> Iterator[str]:
    for name, space in disks.items():
        inodes = f", {space.free_inodes} of {space.inodes} inodes" if space.inodes else ""
        yield f"{NAMES[name]}: {_gigabytes(space.free)} of {_gigabytes(space.size)}{inodes} free"
