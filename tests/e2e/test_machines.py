"""The lab's own servers: none stays when its lab goes, however the run before ended."""

import subprocess
import sys

from tests.lab import nvidia
from tests.lab.images import REPOSITORY
from tests.lab.lab import Lab

ELSEWHERE = ["unshare", "--net"]  # a network that is not the lab's


def test_a_server_is_stopped_also_where_lxc_does_not_see_it(lab: Lab) -> None:
    machine = lab.servers["gpu18"]
    stop = f"from tests.lab.lab import Lab; machine = Lab({lab.name!r}).servers['gpu18']; print(machine.running); machine.stop()"
    try:
        done = subprocess.run(
            [*ELSEWHERE, sys.executable, "-c", stop], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        assert done.stdout == "False\n", "LXC itself sees it only from within the lab's network"
        assert not machine.inits
    finally:
        machine.reboot()
        nvidia.make_devices(machine)
    assert machine.running and machine.inits
