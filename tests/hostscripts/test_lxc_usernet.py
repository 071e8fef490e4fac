"""Case C5: lines of others in /etc/lxc/lxc-usernet."""

import pytest
from labhost.accounts import lxc_usernet

OTHERS = "# a comment\njimbob veth lxcbr0 3\n\n@group veth lxcbr0 1\nbob veth otherbr 2\n"


@pytest.mark.parametrize("other", ["jimbob", "bob2", "bo", "BOB", "bob-x", "@bob", "#bob"])
def test_c5_similar_names_are_different_people(other: str) -> None:
    text = f"{other} veth lxcbr0 1\n"
    assert lxc_usernet.revoke(text, "bob", "lxcbr0") == text
    assert lxc_usernet.grant(text, "bob", "lxc-u1000", "lxcbr0") == text + "bob veth lxc-u1000 1\n"


@pytest.mark.parametrize(
    "other",
    [
        "  x\tveth  br0 1  ",
        "x veth br0 1\r",
        "caf\udce9 veth br0 1",
        "",
        "# bob veth lxc-u1000 1",
        "\x0c",
        "x\x0b\x1c\u2028y",
    ],
)
def test_c5_other_lines_stay_byte_for_byte(other: str) -> None:
    text = f"{other}\nbob veth lxc-u1000 1\n{other}\n"
    assert lxc_usernet.revoke(text, "bob", "lxcbr0") == f"{other}\n{other}\n"
    assert lxc_usernet.grant(text, "bob", "lxc-u1000", "lxcbr0") == text


def test_c5_a_form_feed_does_not_end_a_line() -> None:
    text = "x\x0cbob veth lxc-u1000 1\ncarol veth lxcbr0 1\n"
    assert lxc_usernet.revoke(text, "bob", "lxcbr0") == text


@pytest.mark.parametrize(
    "stale", ["bob veth lxcbr0 1\n", "bob veth lxc-u1000 9\n", "bob veth lxc-u1000 1\n" * 2, "bob\tveth lxc-u7\n"]
)
def test_c5_a_persons_own_stale_lines_become_one(stale: str) -> None:
    assert (
        lxc_usernet.grant(stale + "x veth br0 1\n", "bob", "lxc-u1000", "lxcbr0")
        == "x veth br0 1\nbob veth lxc-u1000 1\n"
    )


def test_c5_an_empty_file() -> None:
    assert lxc_usernet.grant("", "bob", "lxc-u1000", "lxcbr0") == "bob veth lxc-u1000 1\n"
    assert lxc_usernet.revoke("", "bob", "lxcbr0") == ""


def test_c5_a_grant_keeps_every_other_line() -> None:
    granted = lxc_usernet.grant(OTHERS, "bob", "lxc-u1000", "lxcbr0")
    assert granted == OTHERS + "bob veth lxc-u1000 1\n"
    assert lxc_usernet.grant(granted, "bob", "lxc-u1000", "lxcbr0") == granted
    assert lxc_usernet.revoke(granted, "bob", "lxcbr0") == OTHERS


def test_c5_a_last_line_without_a_line_feed_stays_a_line() -> None:
    assert lxc_usernet.grant("x veth br0 1", "bob", "lxc-u1000", "lxcbr0") == "x veth br0 1\nbob veth lxc-u1000 1\n"
