"""labhost is installed as a package of its own; the tests import it from the checkout."""

import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "hostscripts"
sys.path.insert(0, str(SCRIPTS))
