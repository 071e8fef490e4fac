"""The tests of disk limits on ext4 and XFS with project quotas, which few kernels of containers and CI have."""

from pathlib import Path

import pytest

from tests.lab import emulated


@pytest.mark.root
@pytest.mark.long
def test_z1_project_quotas_and_growing_images_hold(tmp_path: Path) -> None:
    kinds = "ext4 xfs image"
    code, output = emulated.run_tests(tmp_path, "tests/hostscripts/test_quota.py", timeout=3000, LAB_IAM_QUOTAS=kinds)
    assert code == 0 and "passed" in output and "skipped" not in output, output[-6000:]
