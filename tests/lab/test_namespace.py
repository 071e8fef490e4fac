"""Processes that a killed lab leaves in its network namespace."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab.images import REPOSITORY
from tests.lab.namespace import Namespace

pytestmark = pytest.mark.root


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    namespace = Namespace(f"labiam-namespace-{os.getpid()}")
    namespace.create([])
    yield namespace
    namespace.delete()


def test_without_orphans_a_process_in_the_namespace_waits_for_nothing(namespace: Namespace) -> None:
    code = f"from tests.lab.namespace import Namespace; n = Namespace({namespace.name!r}); n.enter(); n.end_orphans()"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=5)


def test_orphaned_processes_are_ended_and_others_are_not(namespace: Namespace) -> None:
    inside = ["nsenter", f"--net={namespace.path}"]
    with subprocess.Popen([*inside, "sleep", "600"]) as own:
        leave = "setsid sleep 600 > /dev/null 2>&1 & echo $!"
        orphan = int(subprocess.run([*inside, "sh", "-c", leave], capture_output=True, check=True).stdout)
        assert {orphan, own.pid} <= namespace.processes
        namespace.end_orphans()
        assert namespace.processes == {own.pid}
        own.kill()
