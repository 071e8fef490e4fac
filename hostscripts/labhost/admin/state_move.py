"""Moves root's state to a file system of its own (see host/state_disk.py), and what is large out of it. For set-up.

The image becomes the state by one rename, while all locks are held; until then a killed run leaves a temporary file.
"""

import errno
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

from labhost.errors import LabhostError
from labhost.host import Paths, locks, state_disk
from labhost.protocol.verbs import for_people
from labhost.system import Progress, failpoints, files, openat2, run

SIZE = 256 << 20  # bytes: 10,000 people, with their keys in keys.sqlite3
INODES = 65536
LEAVE_FREE = 512 << 20  # of the disk below it
LOCK_SECONDS = 30.0
LARGE = ("templates", "template.tar.zst")
_SECONDS = 300


@for_people(0, 0)
def main(arguments: list[str], progress: Progress) -> None:
    prepare(Paths().state, progress)


def prepare(state: Path, progress: Progress) -> None:
    """Safe to repeat. What is not possible here is no failure: doctor goes on to report it."""
    image = state_disk.image_of(state)
    if os.path.ismount(state) and not image.exists():
        progress.write(f"state: {state} is on a file system of its own")
        return
    try:
        _remove_leftovers(state)
        state_disk.ensure_mounted(state)
        move_large(state)
        if not image.exists():
            move_state(state)
        state_disk.keep_allocated(state)
    except (LabhostError, OSError) as error:
        progress.write(f"warning: {state} is not safe from a full disk: {error}; run this again later")
        return
    progress.write(f"state: {state} is on {image}")


def move_large(state: Path) -> None:
    """Leaves symbolic links to the templates, so that all paths stay as they were; OSError."""
    outside = state.with_name(f"{state.name}-templates")
    outside.mkdir(mode=0o700, exist_ok=True)
    for name in LARGE:
        inside, moved, link = state / name, outside / name, state / f".{name}.lab-iam-new"
        if inside.is_symlink():
            continue
        if inside.exists():
            _move(inside, moved)
            failpoints.hit(f"state:{name}")
        link.unlink(missing_ok=True)
        os.symlink(moved, link)
        os.replace(link, inside)
    (outside / "templates").mkdir(mode=0o700, exist_ok=True)


def _move(source: Path, target: Path) -> None:
    """A file stays at `source` as well, so that its path never leads nowhere."""
    if source.is_dir():
        os.rename(source, target)
        return
    fresh = target.with_name(f".{target.name}.lab-iam-new")
    fresh.unlink(missing_ok=True)
    try:
        os.link(source, fresh)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(source, fresh)  # an archive that somebody put on the image
        os.chmod(fresh, 0o600)
        _sync(fresh)
    os.rename(fresh, target)
    fresh.unlink(missing_ok=True)  # rename(2) leaves it if both are the same file already


def move_state(state: Path) -> None:
    """LabhostError or OSError if it stays where it is."""
    image, fresh, mounted = state_disk.image_of(state), _fresh(state, ".img"), _fresh(state)
    try:
        _make_image(fresh)
        failpoints.hit("state:made")
        mounted.mkdir(mode=0o700)
        command = ["/usr/bin/mount", "-t", "ext4", "-o", state_disk.OPTIONS, "--", str(fresh), str(mounted)]
        run(command, timeout=60).check("no loop device can be mounted here")
        with openat2.directory(state) as below, _all_locked(state):
            run(["/usr/bin/cp", "-a", "--", f"{state}/.", str(mounted)], timeout=_SECONDS).check("not copied")
            failpoints.hit("state:copied")
            _unmount(mounted)
            _sync(fresh)
            os.rename(fresh, image)
            files.sync_directory(image.parent)
            failpoints.hit("state:moved")
            state_disk.ensure_mounted(state)
            failpoints.hit("state:mounted")
            _empty(Path(f"/proc/self/fd/{below}"))
    finally:
        _remove_leftovers(state)


def _fresh(state: Path, suffix: str = "") -> Path:
    return state.with_name(f"{state.name}{suffix}.lab-iam-new")


def _remove_leftovers(state: Path) -> None:
    mounted = _fresh(state)
    if mounted.is_dir():
        _unmount(mounted)
        mounted.rmdir()
    _fresh(state, ".img").unlink(missing_ok=True)


def _make_image(path: Path) -> None:
    space = os.statvfs(path.parent)
    if space.f_bavail * space.f_frsize < SIZE + LEAVE_FREE:
        needed = (SIZE + LEAVE_FREE) >> 20
        text = f"the disk is low: {needed} MB are needed; ask the lab's staff to free some space"
        raise LabhostError(text, reason="disk_low", megabytes=needed)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    run(["/usr/bin/chattr", "+C", "--", str(path)], timeout=10)  # btrfs: written in place; others refuse it
    run(["/usr/bin/fallocate", "-l", str(SIZE), "--", str(path)], timeout=_SECONDS).check("no space can be reserved")
    # Without `nodiscard` mke2fs would punch holes into what was just reserved.
    extended = "nodiscard,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    options = ["-q", "-F", "-t", "ext4", "-m", "0", "-N", str(INODES), "-E", extended]
    run(["/usr/sbin/mke2fs", *options, "--", str(path)], timeout=_SECONDS).check("no file system can be made")


def _all_locked(state: Path) -> ExitStack:
    """Holds all locks that anybody can hold now, in their order (see locks.py); Busy."""
    deadline = time.monotonic() + LOCK_SECONDS
    with ExitStack() as taken:
        for path in sorted((state / "locks").glob("*"), key=_order):
            fd = taken.enter_context(openat2.closing(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)))
            locks.take(fd, deadline, path.name, "somebody's container is being changed")
        return taken.pop_all()


def _order(lock: Path) -> tuple[bool, bool, str]:
    return not lock.name.startswith("user-"), lock.name.startswith("mounts-"), lock.name


def _empty(folder: Path) -> None:
    """Removes what was copied, below the file system that is now mounted over it."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            files.remove_tree(path)
        else:
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with openat2.closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        os.fsync(fd)


def _unmount(path: Path) -> None:
    if os.path.ismount(path):
        run(["/usr/bin/umount", "--", str(path)], timeout=60).check(f"{path} cannot be unmounted")
