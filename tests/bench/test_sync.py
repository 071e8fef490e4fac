"""The smallest run of the bench reports all figures and leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import sync
from tests.bench.light import PREFIX
from tests.lab.images import REPOSITORY

pytestmark = [pytest.mark.root, pytest.mark.slow]

# In a separate process: it enters a network namespace and belongs to another portal.
SMALL = """
import sys
from tests.bench import sync
sync.Bench.WARM_UPS, sync.Bench.EDITS, sync.Bench.IDLE_SECONDS = 1, 3, 0.5
raise SystemExit(sync.main(sys.argv[1:]))
"""
WANTED = {
    "one_change_warm_s", "one_change_cold_s", "first_full_push_s", "no_change_pass_s", "no_change_files_written",
    "bytes_one_change", "pushes_per_server_burst", "floor_cold_s", "floor_warm_s", "servers", "users",
}  # fmt: skip


def test_a_small_benchmark_reports_all_figures_and_leaves_nothing() -> None:
    words = [sys.executable, "-c", SMALL, "--servers", "2", "--users", "20", "--runs", "1", "--json"]
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # not the settings of the tests
    done = subprocess.run(words, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result.keys() >= WANTED and (result["servers"], result["users"]) == (2, 20)
    assert result["no_change_files_written"] == 0 and 1 <= result["pushes_per_server_burst"] <= 3
    assert all(result[name] > 0 for name in WANTED if name.endswith("_s") or name == "bytes_one_change")
    assert not sync.FOLDER.exists() and not list(Path("/run/netns").glob(f"{PREFIX}-*"))
