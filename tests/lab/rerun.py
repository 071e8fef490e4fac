"""Runs a part of the tests. What fails is run once more; what passes then is unsteady, not failed."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.report import summary

SOME_FAILED = 1  # an exit status of pytest; higher ones mean that it did not run properly
MOST_UNSTEADY = 2
Run = Callable[..., int]  # pytest with these arguments; returns its exit status


@dataclass(frozen=True)
class Part:
    code: int  # 0, or the exit status that makes the part red
    summary: str
    failed: tuple[str, ...] = ()  # node ids, in both runs
    unsteady: tuple[str, ...] = ()  # node ids, in the first run only


def run_part(name: str, run: Run, folder: Path, *arguments: str) -> Part:
    """One part and, if tests failed, those alone once more. `folder` holds its report and pytest's cache."""
    report, cache = folder / f"{name}.xml", folder / name
    options = (*arguments, "-o", f"cache_dir={cache}")
    code = run(*options, f"--junitxml={report}")
    if not report.exists():
        return Part(code or SOME_FAILED, f"{name}: FAILED: pytest did not end by itself")
    line = f"{name}: {summary(report)}"
    first = _failures(cache)
    if code != SOME_FAILED or not first:
        return Part(code, line, first)
    again = run(*options, "--last-failed", "--last-failed-no-failures=none")
    if again not in (0, SOME_FAILED):
        return Part(again, line, first)
    failed = tuple(test for test in first if test in _failures(cache))
    unsteady = tuple(test for test in first if test not in failed)
    return Part(SOME_FAILED if failed else 0, line, failed, unsteady)


def verdict(parts: Iterable[Part]) -> tuple[int, list[str]]:
    """The exit status of all parts together, and the last lines: a summary of each, then the tests to look at."""
    parts = list(parts)
    unsteady = [test for part in parts for test in part.unsteady]
    lines = [part.summary for part in parts]
    lines += [f"failed: {test}" for part in parts for test in part.failed]
    lines += [f"unsteady: {test}" for test in unsteady]
    code = max((part.code for part in parts), key=abs, default=0)
    if len(unsteady) > MOST_UNSTEADY:
        lines.append(f"FAILED: {len(unsteady)} tests are unsteady, more than {MOST_UNSTEADY}")
        code = code or SOME_FAILED
    return code, lines


def _failures(cache: Path) -> tuple[str, ...]:
    """The tests that failed when they last ran, as pytest's cache has them."""
    file = cache / "v/cache/lastfailed"
    return tuple(json.loads(file.read_text())) if file.exists() else ()
