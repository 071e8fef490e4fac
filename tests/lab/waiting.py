"""Waiting in tests: for a condition, with a limit."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], what: str, timeout: float = 20) -> T:
    """The first true result of `look`; AssertionError with `what` without one in `timeout` seconds."""
    end = time.monotonic() + timeout
    while not (seen := look()):
        assert time.monotonic() < end, f"not seen in {timeout:g} s: {what}"
        time.sleep(0.05)
    return seen


@contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    """Fail if the block waits for something that takes longer. A guard against hanging, not a measure of speed."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds, f"it took longer than {seconds:g} s"
