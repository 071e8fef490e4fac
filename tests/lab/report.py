"""The last lines of `./lab test`, from pytest's JUnit report: how many tests ran, and which were skipped and why."""

from pathlib import Path
from xml.etree import ElementTree


def summary(report: Path) -> str:
    """One line of counts, and one more for each skipped test."""
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    seconds, skipped = 0.0, []
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        counts = {name: count + int(suite.get(name, "0")) for name, count in counts.items()}
        seconds += float(suite.get("time", "0"))
        for case in suite.iter("testcase"):
            for skip in case.iter("skipped"):
                skipped.append(f"  skipped: {case.get('classname')}::{case.get('name')}: {skip.get('message')}")
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    tests = "1 test" if counts["tests"] == 1 else f"{counts['tests']} tests"
    line = f"{tests} in {seconds:.0f} s: {passed} passed, {failed} failed, {counts['skipped']} skipped"
    return "\n".join([line, *skipped])
