"""Case R5: names of people, and untrusted text that is printed on a terminal."""

import pytest
from labhost.errors import Refused
from labhost.system import names


@pytest.mark.parametrize("name", ["alice", "_x", "a", "a" * 32, "a-b_c9", "roots"])
def test_r5_valid_names_are_accepted(name: str) -> None:
    assert names.is_name(name) and names.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *sorted(names.RESERVED),
        "-rf",
        "..",
        "a" * 33,
        "Alice",
        "a b",
        "a\n",
        "\u00e9",
        "",
        "9a",
        "a/b",
        "a.b",
        "a\0",
        "\na",
        "a\u0661",
        "\uff41",
        "$(id)",
        "a" * 100_000,
    ],
)
def test_r5_invalid_names_are_refused_in_one_short_line(name: str) -> None:
    assert not names.is_name(name)
    with pytest.raises(Refused) as caught:
        names.check_name(name)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [None, 1, True, b"alice", ["alice"]])
def test_r5_only_a_string_is_a_name(value: object) -> None:
    assert not names.is_name(value)
    with pytest.raises(Refused):
        names.check_name(value)


def test_r5_untrusted_text_becomes_one_line() -> None:
    assert names.printable("a\x1b[2J\nb\u202e") == "a?[2J?b?"
    assert len(names.printable("x" * 10_000)) == 203
