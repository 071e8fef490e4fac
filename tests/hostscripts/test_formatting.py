"""Sizes, ages, tables and JSON lines."""

import pytest
from labhost.system import formatting


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KB"), (1536, "1.5 KB"), (200 << 30, "200 GB"), (5 << 50, "5120 TB")],
)
def test_sizes_are_rounded(number: int, text: str) -> None:
    assert formatting.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (59, "just now"), (60, "1 minute ago"), (7199, "1 hour ago"), (200_000, "2 days ago")],
)
def test_ages_are_rounded(seconds: int, text: str) -> None:
    assert formatting.age(1_000_000, 1_000_000 + seconds) == text


def test_numbers_in_a_table_are_aligned_to_the_right() -> None:
    assert formatting.table(("name", "port"), [("alice", 80), ("b", 30000)]) == [
        "name    port",
        "alice     80",
        "b      30000",
    ]
    assert formatting.table(("name", "port"), []) == ["name  port"]
