"""Overlays over a real ext4 with blocks reserved for root, in a mount namespace; needs root."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostscripts.conftest import SCRIPTS

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SUBUID = 1_200_000_000
# 64 MB, a quarter of them root's. As new-lxc.bash makes it: an idmapped view of a template below a layer.
PREPARE = """set -eu
truncate -s 64M disk
mke2fs -q -t ext4 -m 25 -F disk
mkdir disk.d
mount -o loop disk disk.d
cd disk.d
mkdir -p template/bin view layer/upper layer/work rootfs
echo own > template/bin/program
chmod 4755 template/bin/program
chown 1200000000:1200000000 layer/upper
"""
MOUNT = """
import sys
from pathlib import Path
from labhost.system import mounts
here, first = Path.cwd(), int(sys.argv[1])
mounts.idmapped(here / "template", here / "view", first, 65536)
mounts.overlay(here / "rootfs", lower=here / "view", upper=here / "layer/upper", work=here / "layer/work", owner=first)
"""
# Runs a command as root of the container's id map.
INSIDE = """
import os, sys
from labhost.system.user_namespaces import fork_mapped
def enter():
    os.setgroups([])
    os.setgid(0)
    os.setuid(0)
    os.execvp(sys.argv[2], sys.argv[2:])
status = os.waitpid(fork_mapped(int(sys.argv[1]), 65536, enter), 0)[1]
sys.exit(os.waitstatus_to_exitcode(status))
"""
FUNCTIONS = """
attach() { "$PYTHON" -c "$MOUNT" "$SUBUID"; }
inside() { "$PYTHON" -c "$INSIDE" "$SUBUID" "$@"; }
"""


def run(folder: Path, script: str) -> list[str]:
    """The words that a script prints, in a mount namespace of its own and in the folder of a container."""
    values = {"MOUNT": MOUNT, "INSIDE": INSIDE, "SUBUID": str(SUBUID), "PYTHON": sys.executable}
    words = ["unshare", "--mount", "--propagation", "private", "bash", "-c", FUNCTIONS + PREPARE + script]
    env = {**os.environ, **values, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


FILL = """
inside dd if=/dev/zero of=rootfs/large bs=1M status=none || true
inside dd if=/dev/zero of=rootfs/bin/program bs=1M status=none || true
sync
stat -f -c '%f %a' .
"""


def test_z1_a_container_leaves_the_blocks_that_are_reserved_for_root(tmp_path: Path) -> None:
    free, available = map(int, run(tmp_path, "attach" + FILL))
    assert available < 1024, "the container could not fill the disk"
    assert free >= 4096, f"of 4096 blocks {free} are left for root"


def test_z1_a_layer_of_an_older_mount_leaves_them_at_the_next_one(tmp_path: Path) -> None:
    """Its files and the kernel's work folder may belong to root."""
    old = """
    mount -t overlay -o lowerdir=template,upperdir=layer/upper,workdir=layer/work,userxattr,index=off none rootfs
    mkdir rootfs/home
    rm rootfs/bin/program
    umount rootfs
    [[ $(stat -c %u layer/work/work) == 0 ]]
    attach"""
    free, available = map(int, run(tmp_path, old + FILL))
    assert (available < 1024, free >= 4096) == (True, True)


def test_z1_the_container_can_do_what_it_could(tmp_path: Path) -> None:
    """Copy-up, whiteouts, setuid, other owners, attributes, hard links, device-like nodes and renames."""
    script = """
    attach
    inside chown 1000:1000 rootfs/bin/program
    inside chmod 4750 rootfs/bin/program
    inside /usr/bin/python3 -c 'import os; os.setxattr("rootfs/bin/program", "user.colour", b"blue")'
    inside ln rootfs/bin/program rootfs/bin/second
    inside mv rootfs/bin/program rootfs/bin/third
    inside mkdir -m 700 rootfs/private
    inside touch rootfs/private/file
    inside chown 1000:1000 rootfs/private/file rootfs/private
    inside mkfifo rootfs/fifo
    inside rm -r rootfs/private
    stat -c '%u:%g:%a' rootfs/bin/third
    /usr/bin/python3 -c 'import os; print(os.getxattr("rootfs/bin/second", "user.colour").decode())'
    stat -c %F:%t:%T layer/upper/bin/program
    umount rootfs
    attach
    inside ls rootfs rootfs/bin"""
    shown = run(tmp_path, script)
    assert shown[:5] == [f"{SUBUID + 1000}:{SUBUID + 1000}:4750", "blue", "character", "special", "file:0:0"]
    assert shown[5:] == ["rootfs:", "bin", "fifo", "rootfs/bin:", "second", "third"]
