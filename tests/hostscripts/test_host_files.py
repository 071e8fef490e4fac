"""Cases C4, C5 and R5: names, and the files that belong to others as well."""

import pytest
from labhost import names, subids, usernet
from labhost.errors import Refused

KEPT = "# a comment\njimbob veth lxcbr0 3\n\n@group veth lxcbr0 1\nbob veth otherbr 2\n"


def test_c5_granting_keeps_every_other_line() -> None:
    granted = usernet.grant(KEPT, "bob", "lxcbr0")
    assert granted == KEPT + "bob veth lxcbr0 1\n"
    assert usernet.grant(granted, "bob", "lxcbr0") == granted
    assert usernet.revoke(granted, "bob", "lxcbr0") == KEPT


def test_c5_a_last_line_without_an_end_stays_a_line() -> None:
    assert usernet.grant("x veth br0 1", "bob", "lxcbr0") == "x veth br0 1\nbob veth lxcbr0 1\n"


@pytest.mark.parametrize(("start", "owner"), [(100_000, "bob"), (99_999 + 65_536, "bob"), (34_465, "bob")])
def test_c4_a_block_that_overlaps_a_local_one_is_found(start: int, owner: str) -> None:
    block = subids.conflict(subids.parse("bob:100000:65536\nnonsense\n"), ["alice"], start, 65_536)
    assert block is not None and block.owner == owner


@pytest.mark.parametrize("start", [100_000 + 65_536, 34_464])
def test_c4_a_block_beside_it_is_free(start: int) -> None:
    assert subids.conflict(subids.parse("bob:100000:65536\n"), ["alice"], start, 65_536) is None


@pytest.mark.parametrize("name", ["root", "iam", "register", "-rf", "..", "a" * 33, "Alice", "a b", "a\n", "é", ""])
def test_r5_names_that_nobody_has(name: str) -> None:
    assert not names.is_name(name)
    with pytest.raises(Refused):
        names.check_name(name)
