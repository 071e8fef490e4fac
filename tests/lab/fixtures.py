"""The lab's pytest plugin (named in pyproject.toml): marks, and one booted lab for tests/e2e and tests/browser."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.lab import postgres as postgresql
from tests.lab.lab import Lab, only_one
from tests.lab.walk import Walk

TESTS = Path(__file__).resolve().parents[1]
WITH_LAB = (TESTS / "e2e", TESTS / "browser")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark tests that need the booted lab or the farm of real sshds."""
    if "farm" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.slow)
    if any(folder in item.path.parents for folder in WITH_LAB):
        item.add_marker(pytest.mark.lab)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The six flows come first. Long tests run only when they are asked for with `-m long`."""
    items.sort(key=lambda item: "test_flows" not in item.path.name)
    if "long" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test counts as failed."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgresql.Postgres]:
    """A PostgreSQL cluster that lives as long as the tests."""
    with postgresql.cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A fresh lab for this process, removed at the end. The process moves into the lab's network."""
    name = "-".join([os.environ.get("LAB_IAM_LAB", "test"), *filter(None, [os.environ.get("PYTEST_XDIST_WORKER")])])
    with only_one(name):
        lab = Lab(name)
        if lab.exists:
            lab.remove()
        try:
            lab.make()
            yield lab
        finally:
            lab.remove()


@pytest.fixture(scope="session")
def walk(lab: Lab) -> Walk:
    return Walk(lab)
