"""Root's state on a file system of its own, on a real ext4 that is full; in a mount namespace, needs root."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostscripts.conftest import SCRIPTS

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

# A small disk with the homes and the state, as on many servers, and an image that fits.
PREPARE = """set -eu
truncate -s 96M disk
mke2fs -q -t ext4 -m 5 -N 4096 -F disk
mkdir disk.d
mount -o loop disk disk.d
cd disk.d
mkdir -p home lib/state/users lib/state/locks lib/state/templates/0123
chmod 700 lib/state
echo '{}' > lib/state/users/alice.json
touch lib/state/locks/keys lib/state/locks/user-alice
echo program > lib/state/templates/0123/init
echo archive > lib/state/template.tar.zst
"""
MOVE = """
import sys
from pathlib import Path
from labhost.admin import state_move
from labhost.system import Progress
state_move.SIZE, state_move.INODES, state_move.LEAVE_FREE = 16 << 20, 1024, 1 << 20
state_move.LOCK_SECONDS = 0.2
state_move.prepare(Path.cwd() / "lib/state", Progress(sys.stdout))
"""
FUNCTIONS = """
move() { "$PYTHON" -c "$MOVE"; }
labhost() { "$PYTHON" -c "from pathlib import Path; from labhost.host import state_disk; state = Path.cwd() / 'lib/state'; $1"; }
fill() { dd if=/dev/zero of=home/large bs=1M status=none || true; }
"""


def run(folder: Path, script: str) -> str:
    """What a script prints, in a mount namespace of its own and on that disk."""
    words = ["unshare", "--mount", "--propagation", "private", "bash", "-c", FUNCTIONS + PREPARE + script]
    env = {**os.environ, "MOVE": MOVE, "PYTHON": sys.executable, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_z1_the_state_can_be_written_when_blocks_and_inodes_are_used_up(tmp_path: Path) -> None:
    script = """
    move > /dev/null
    fill
    for number in $(seq 5000); do : > home/$number || break; done 2> /dev/null
    ! touch home/more 2> /dev/null
    stat -f -c %a,%d .
    for number in $(seq 500); do echo '{}' > lib/state/users/user$number.json; done
    dd if=/dev/zero of=lib/state/keys.sqlite3 bs=1M count=8 conv=fsync status=none
    cat lib/state/users/alice.json"""
    assert run(tmp_path, script).split() == ["0,0", "{}"]


def test_z1_paths_stay_and_large_things_do_not_use_the_image(tmp_path: Path) -> None:
    script = """
    move > /dev/null
    cat lib/state/templates/0123/init lib/state/template.tar.zst lib/state/users/alice.json
    stat -c %a:%u lib/state lib/state.img lib/state-templates
    echo newer > archive; mv archive lib/state/template.tar.zst
    move > /dev/null
    cat lib/state/template.tar.zst; readlink lib/state/template.tar.zst
    umount lib/state
    ls -A lib lib/state"""
    large = tmp_path / "disk.d/lib/state-templates/template.tar.zst"
    expected = ["program", "archive", "{}", "700:0", "600:0", "700:0", "newer", str(large)]
    assert run(tmp_path, script).split() == [*expected, "lib:", "state", "state-templates", "state.img", "lib/state:"]


STEPS = ("templates", "template.tar.zst", "made", "copied", "moved", "mounted")


@pytest.mark.parametrize("step", STEPS)
def test_z1_a_move_that_is_killed_goes_on_at_the_next_run(tmp_path: Path, step: str) -> None:
    script = f"""
    LABHOST_FAILPOINT=state:{step} move > /dev/null 2>&1 || [[ $? == 137 ]]
    labhost "state_disk.ensure_mounted(state)"
    cat lib/state/users/alice.json
    move > /dev/null
    cat lib/state/users/alice.json lib/state/template.tar.zst lib/state/templates/0123/init
    findmnt -n -o FSTYPE lib/state
    find . -name "*.lab-iam-new" """
    assert run(tmp_path, script).split() == ["{}", "{}", "archive", "program", "ext4"]


def test_z1_the_folder_below_an_image_is_never_used(tmp_path: Path) -> None:
    script = """
    move > /dev/null
    umount lib/state
    labhost "state_disk.ensure_mounted(state)"
    cat lib/state/users/alice.json
    umount lib/state
    dd if=/dev/zero of=lib/state.img bs=1M count=1 conv=notrunc status=none
    labhost "state_disk.ensure_mounted(state)" 2>&1 | tail -n 1"""
    shown = run(tmp_path, script)
    assert shown.startswith("{}\n") and "LabhostError" in shown and "cannot be mounted" in shown


def test_z1_holes_in_the_image_are_filled_and_no_trim_makes_new_ones(tmp_path: Path) -> None:
    script = """
    move > /dev/null
    labhost "print(state_disk.is_whole(state))"
    fallocate --punch-hole --offset 8M --length 4M lib/state.img
    labhost "print(state_disk.is_whole(state)); state_disk.keep_allocated(state); print(state_disk.is_whole(state))"
    fstrim lib/state 2>&1 || true
    sync
    labhost "print(state_disk.is_whole(state))" """
    shown = run(tmp_path, script)
    assert [word for word in shown.split() if word in ("True", "False")] == ["True", "False", "True", "True"]
    assert "not supported" in shown


def test_z1_without_space_or_while_somebody_works_it_says_so_and_goes_on(tmp_path: Path) -> None:
    script = """
    ( flock 9; move ) 9> lib/state/locks/user-alice
    fill
    move
    rm home/large
    ls lib; cat lib/state/users/alice.json
    move"""
    lines = run(tmp_path, script).splitlines()
    assert "is not safe from a full disk: another command is running" in lines[0]
    assert "the disk is low" in lines[1]
    assert lines[2:5] == ["state", "state-templates", "{}"] and lines[5].startswith("state: ")
