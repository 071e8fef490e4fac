"""Servers of a lab are stopped with it, however the previous run ended."""

import subprocess
import sys

from tests.lab import nvidia
from tests.lab.images import REPOSITORY
from tests.lab.lab import Lab

ELSEWHERE = ["unshare", "--net"]  # a network outside the lab


def test_a_server_that_lxc_does_not_list_is_stopped_too(lab: Lab) -> None:
    machine = lab.servers["gpu18"]
    stop = f"from tests.lab.lab import Lab; machine = Lab({lab.name!r}).servers['gpu18']; print(machine.running); machine.stop()"
    try:
        done = subprocess.run(
            [*ELSEWHERE, sys.executable, "-c", stop], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        assert done.stdout == "False\n", "LXC itself lists it only within the lab's network"
        assert not machine.inits
    finally:
        machine.reboot()
        nvidia.make_devices(machine)
    assert machine.running and machine.inits
