"""Free space as servers report it: what a hostile server sends is left out, what is low is named."""

from typing import Any

import pytest

from servers import disks, protocol

DISK = {"size": 100 << 30, "free": 50 << 30, "inodes": 1000, "free_inodes": 500}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"homes": None},
        {"other": DISK},
        {"homes": DISK | {"free": -1}},
        {"homes": DISK | {"free": True}},
        {"homes": DISK | {"size": "1"}},
        {"homes": DISK | {"inodes": 2**63}},
        {"homes": {"size": 1}},
    ],
)
def test_z1_what_is_not_well_formed_is_left_out(value: Any) -> None:
    assert disks.parse_disks(value) == {}
    assert (disks.summary(value), disks.shortages(value)) == ("", [])


def test_z1_an_answer_has_the_disks_that_the_portal_knows() -> None:
    answer = protocol.parse_answer(
        b'{"version": 1, "ok": true, "disks": {"state": {"size": 9, "free": 8, "inodes": 7, "free_inodes": 6}, "x": 1}}'
    )
    assert answer.disks == {"state": disks.Space(9, 8, 7, 6)}
    assert disks.parse_disks(disks.as_json(answer.disks)) == answer.disks


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"inodes": 0, "free_inodes": 0}, []),
        ({"free": 1 << 30}, ["people's files: 1.0 GB free"]),
        ({"size": 10 << 40, "free": 100 << 30}, ["people's files: 100.0 GB free"]),
        ({"size": 1 << 28, "free": 1 << 27}, []),
        ({"free_inodes": 40}, ["people's files: 40 inodes free"]),
        ({"free": 0, "free_inodes": 0}, ["people's files: 0.0 GB free, 0 inodes free"]),
    ],
)
def test_z1_low_is_2_gb_or_2_percent_or_5_percent_of_the_inodes(changes: dict[str, int], found: list[str]) -> None:
    assert disks.shortages({"homes": DISK | changes}) == found
