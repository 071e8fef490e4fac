import subprocess
import sys

import pytest

from tests.lab import kernel
from tests.lab.images import REPOSITORY

WITHOUT_NETWORK = "echo 0 > /proc/sys/user/max_net_namespaces; exec {python} -c '{code}'"
CODE = "from tests.lab import kernel; kernel.check()"


@pytest.mark.root
def test_this_kernel_has_what_the_lab_needs() -> None:
    kernel.check()


@pytest.mark.root
def test_a_missing_kernel_feature_is_reported_in_one_line() -> None:
    """A user namespace in which no network namespace may be made stands for such a kernel."""
    script = WITHOUT_NETWORK.format(python=sys.executable, code=CODE)
    words = ["unshare", "--user", "--map-root-user", "sh", "-c", script]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0 and "no network namespaces here" in last and "./lab run" in last
