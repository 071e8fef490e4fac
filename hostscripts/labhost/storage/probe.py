"""Tests in scratch folders whether this server's kernel and file systems can do `overlay`."""

import os
from contextlib import suppress
from pathlib import Path

from labhost.host import SUBUID_COUNT, Paths
from labhost.system import files, mounts


def overlay_error(paths: Paths, first: int) -> str:
    """Why `overlay` does not work here, in one line; empty if it works. `first` is a subordinate id."""
    name = f".lab-iam-probe-{os.urandom(6).hex()}"
    templates = paths.state / "templates"  # may be on another file system than the rest
    below, above = (templates if templates.is_dir() else paths.state) / name, paths.home / name
    try:
        for folder in (below / "lower", below / "view", above / "upper", above / "work", above / "shown"):
            folder.mkdir(mode=0o755, parents=True)
        below.chmod(0o700)
        (below / "lower/file").write_text("a template's")
        os.chown(above / "upper", first, first)
        mounts.idmapped(below / "lower", below / "view", first, SUBUID_COUNT)
        folders = {"upper": above / "upper", "work": above / "work"}
        mounts.overlay(above / "shown", lower=below / "view", **folders, owner=first)
        return _try(above)
    except OSError as error:
        return f"the kernel or the file system refuses it: {error.strerror}"
    finally:
        for mounted in (above / "shown", below / "view"):
            with suppress(OSError):
                mounts.unmount(mounted)
        files.remove_tree(below)
        files.remove_tree(above)


def _try(above: Path) -> str:
    """Does what a container does: owns the template's files, changes one, deletes it; all in the upper layer."""
    file = above / "shown/file"
    owner = os.stat(file).st_uid
    if owner != os.stat(above / "upper").st_uid:
        return f"ids are not mapped: {owner}"
    file.write_text("changed")
    os.setxattr(file, "user.lab-iam", b"1")
    if (above / "upper/file").read_text() != "changed":
        return "changes do not reach the upper layer"
    file.unlink()
    return "" if not file.exists() else "deletions do not work"
