"""/etc/subuid and /etc/subgid: parsed and compared, never edited here (usermod does that)."""

import re
from collections.abc import Iterable
from typing import NamedTuple

_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)  # as many digits as an id has


class Block(NamedTuple):
    owner: str
    start: int
    size: int

    @property
    def as_range(self) -> str:
        """As usermod(8) takes it."""
        return f"{self.start}-{self.start + self.size - 1}"

    def overlaps(self, start: int, count: int) -> bool:
        return self.start < start + count and start < self.start + self.size


def parse(text: str) -> list[Block]:
    """The blocks of a subuid file, see subuid(5); other lines are skipped."""
    blocks = []
    for line in text.splitlines():
        owner, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if owner and _NUMBER.fullmatch(start) and _NUMBER.fullmatch(count):
            blocks.append(Block(owner, int(start), int(count)))
    return blocks


def conflict(blocks: Iterable[Block], names: Iterable[str], start: int, count: int) -> Block | None:
    """A block that overlaps start..start+count-1 and whose owner is not in `names` (a login name, its uid)."""
    mine = set(names)
    return next((block for block in blocks if block.owner not in mine and block.overlaps(start, count)), None)
