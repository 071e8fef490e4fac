"""A line on the terminal while something takes longer than two seconds."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 2.0


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Print `what` after two seconds, then the time it has taken: in place on a terminal, every 15 s elsewhere."""
    done = threading.Event()
    began = time.monotonic()

    def show() -> None:
        terminal = sys.stderr.isatty()
        while not done.wait(PATIENCE if terminal or time.monotonic() - began < PATIENCE else 15):
            seconds = f"{time.monotonic() - began:.0f} s"
            if terminal:
                sys.stderr.write(f"\r\033[K  … {what}: {seconds}")
            else:
                sys.stderr.write(f"  … {what}: {seconds}\n")
            sys.stderr.flush()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if sys.stderr.isatty() and time.monotonic() - began > PATIENCE:
            sys.stderr.write("\r\033[K")
