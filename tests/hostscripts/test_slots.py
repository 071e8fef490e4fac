"""Case S4: the systems of a person are replaced by renames, and a kill between two of them leaves one in place."""

import os
from pathlib import Path

import pytest
from labhost.storage.slots import Slots


def made(slots: Slots, text: str) -> Path:
    fresh = slots.new_path()
    fresh.mkdir()
    (fresh / "what").write_text(text)
    return fresh


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    slots = Slots(tmp_path, "layer")
    slots.install(made(slots, "first"))
    return slots


def current(slots: Slots) -> str:
    return (slots.current / "what").read_text()


def test_the_previous_system_is_rolled_back(slots: Slots) -> None:
    slots.install(made(slots, "second"))
    assert current(slots) == "second"
    assert slots.roll_back() and current(slots) == "first"
    assert not slots.roll_back(), "the first has no previous one"


def test_a_system_that_never_started_does_not_replace_the_previous_one(slots: Slots) -> None:
    for text in ("second", "third"):
        slots.install(made(slots, text))
    assert current(slots) == "third"
    assert slots.roll_back() and current(slots) == "first"


def test_after_a_good_start_the_previous_system_is_a_leftover(slots: Slots) -> None:
    slots.install(made(slots, "second"))
    slots.discard_previous()
    assert not slots.roll_back() and current(slots) == "second"
    assert [(path / "what").read_text() for path in slots.leftovers()] == ["first"]


@pytest.mark.parametrize("before", [1, 2])
def test_s4_killed_between_the_renames_the_previous_system_is_current(
    slots: Slots, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    for number in range(before - 1):
        slots.install(made(slots, f"unstarted {number}"))
    fresh = made(slots, "new")
    real = os.rename

    def killed(source: Path, target: Path) -> None:
        if source == fresh:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        slots.install(fresh)
    monkeypatch.undo()
    assert slots.exists() and not slots.current.exists()
    slots.repair()
    assert current(slots) == "first"
    assert fresh in slots.leftovers()
