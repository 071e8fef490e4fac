"""Case C4: blocks of subordinate ids and those in /etc/subuid."""

import pytest
from labhost.accounts import subids
from labhost.accounts.subids import Block


@pytest.mark.parametrize(
    "line",
    ["", "bob", "bob:1", "bob:-1:5", "bob:1:", ":1:5", "bob:0x10:5", "bob:\u0661:5", "#x", "bob:" + "9" * 5000 + ":5"],
)
def test_c4_lines_that_are_not_blocks_are_skipped(line: str) -> None:
    assert subids.parse(f"{line}\nalice:10:5\n") == [Block("alice", 10, 5)]


@pytest.mark.parametrize(
    ("start", "count", "expected"),
    [(0, 10, False), (0, 11, True), (14, 1, True), (15, 1, False), (11, 2, True), (0, 100, True)],
)
def test_c4_adjacent_blocks_do_not_overlap(start: int, count: int, expected: bool) -> None:
    assert Block("bob", 10, 5).overlaps(start, count) is expected


def test_c4_a_persons_own_block_by_name_or_uid_is_no_conflict() -> None:
    blocks = [Block("alice", 100_000, 65_536), Block("1001", 100_000, 65_536)]
    assert subids.conflict(blocks, ["alice", "1001"], 100_000, 65_536) is None
    assert subids.conflict(blocks, ["alice"], 100_000, 65_536) == blocks[1]


@pytest.mark.parametrize(("start", "owner"), [(100_000, "bob"), (99_999 + 65_536, "bob"), (34_465, "bob")])
def test_c4_a_block_that_overlaps_a_local_one_is_found(start: int, owner: str) -> None:
    block = subids.conflict(subids.parse("bob:100000:65536\nnonsense\n"), ["alice"], start, 65_536)
    assert block is not None and block.owner == owner


@pytest.mark.parametrize("start", [100_000 + 65_536, 34_464])
def test_c4_an_adjacent_block_is_free(start: int) -> None:
    assert subids.conflict(subids.parse("bob:100000:65536\n"), ["alice"], start, 65_536) is None
