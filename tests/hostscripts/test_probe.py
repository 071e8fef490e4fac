"""The probe for overlay on this machine's kernel, as root in its own mount namespace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostscripts.conftest import SCRIPTS

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

PROBE = """
import sys
from pathlib import Path
from labhost.host.config import Paths
from labhost.storage import probe
print(probe.overlay_error(Paths(state=Path(sys.argv[1], "state"), home=Path(sys.argv[1], "home")), 1_200_000_000))
"""


def probed(folder: Path, before: str = ":") -> str:
    for name in ("state", "home"):
        (folder / name).mkdir()
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{before}; exec "$@"', "sh"]
    words += [sys.executable, "-c", PROBE, str(folder)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(SCRIPTS)}
    )
    assert [*(folder / "state").iterdir(), *(folder / "home").iterdir()] == [], "leftovers"
    return done.stdout.strip()


def test_overlay_works_on_this_machine(tmp_path: Path) -> None:
    assert probed(tmp_path) == ""


def test_a_file_system_that_cannot_hold_layers_is_reported(tmp_path: Path) -> None:
    """The upper layer of an overlay cannot be on an overlay."""
    before = f"cd {tmp_path}; mkdir l u w; mount -t overlay -o lowerdir=l,upperdir=u,workdir=w none {tmp_path}/home"
    assert "refuses" in probed(tmp_path, before)
