"""What setup-gpu-server.bash leaves to Python: host.conf, iam's key, and whether this server is fit."""

import grp
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from labhost.admin import sudoers
from labhost.errors import LabhostError, Refused
from labhost.gpu import nvidia
from labhost.host import config
from labhost.host.config import Host, Paths
from labhost.keys import public_keys
from labhost.storage import probe, snapshot_store
from labhost.system import files
from labhost.system.progress import Progress

# What root executes, or trusts as its own configuration: nobody else may write it or any folder above it.
TRUSTED = (
    "/usr/local/sbin/labhost",
    "/usr/local/lib/lab-iam/labhost",
    "/public/login.bash",
    "/home/iam/iam-shell.bash",
    "/home/iam/set_authorized_keys.py",
    "/home/register/register.bash",
    "/root/new-lxc.bash",
    "/etc/lab-iam/host.conf",
    "/etc/sudoers.d/lab-iam",
    "/var/lib/lab-iam",
)


def configure(words: Sequence[str], progress: Progress) -> None:
    """`section.key=value ...`, `token-file=FILE`, `iam-key=LINE`: what is not given stays as it was."""
    paths = Paths()
    values = config.read_values(files.read_text(paths.config) or "")
    for word in words:
        name, equals, value = word.partition("=")
        if name == "token-file":
            values["portal.token"] = (files.read_text(Path(value), 4096) or "").strip()
        elif name == "iam-key":
            _write_iam_key(paths, value)
        elif equals and name in config.DEFAULTS:
            values[name] = value
        else:
            raise LabhostError(f"configure: {name} is not a known KEY=VALUE")
    _choose_storage(paths, values, progress)
    text = config.render(values)
    config.parse(config.read_values(text))
    progress.write(f"{paths.config} {'written' if files.write_atomic(paths.config, text, mode=0o600) else 'unchanged'}")


def _choose_storage(paths: Paths, values: dict[str, str], progress: Progress) -> None:
    """`auto`, or nothing yet: overlay where it works. Containers keep the driver with which they were made."""
    wanted = values.get("container.storage", "auto")
    if wanted not in ("auto", "overlay"):
        return
    first = config.parse({**values, "container.storage": "dir"}).server.subuids.first
    fault = probe.overlay_error(paths, first)
    if wanted == "overlay" and fault:
        raise Refused(f"--storage overlay: {fault}; use --storage dir, or Linux 5.19 and ext4, XFS or btrfs")
    if fault:
        progress.write(f"storage: dir, for overlay does not work here ({fault})")
    values["container.storage"] = "dir" if fault else "overlay"


def _write_iam_key(paths: Paths, line: str) -> None:
    words = line.split()
    try:
        key = public_keys.check_key(words[0] if words else "", words[1] if len(words) > 1 else "")
    except public_keys.BadKey as error:
        raise LabhostError(f"--iam-key: {error}") from error
    files.write_atomic(paths.home / "iam/.ssh/authorized_keys", public_keys.render_iam(key), mode=0o644)


def check(host: Host, progress: Progress) -> None:
    """Refused with the first reason why people must not be let onto this server."""
    check_policy(host)
    for path in untrusted():
        raise Refused(f"{path} must belong to root, and nobody else may write it")
    snapshot_store.prepare(host)
    for name in host.unknown_settings:
        progress.write(f"warning: host.conf: {name} is unknown and ignored")
    progress.write(f"driver: {nvidia.host_version(host.config) or 'none'}, storage: {host.config.container.storage}")


def check_policy(host: Host) -> None:
    """Refused if groups, sudo or the bridge are not as they must be."""
    for group in host.config.container.groups:
        try:
            grp.getgrnam(group)
        except KeyError as error:
            raise Refused(f"the group {group} does not exist here; make it or correct --groups") from error
    free = sudoers.without_password(sudoers.read(), host.config.container.groups)
    if free:
        raise Refused(f"sudoers lets the group {free[0]} work without a password: remove NOPASSWD, or correct --groups")
    if not Path("/sys/class/net", host.config.container.bridge).exists():
        raise Refused(f"the bridge {host.config.container.bridge} does not exist; see systemctl status lxc-net")


def untrusted() -> list[str]:
    """What others than root could change, among what root trusts, with all that is below it and all above it."""
    found: dict[str, bool] = {}
    for name in TRUSTED:
        if os.path.lexists(name):
            path = Path(name)
            below = path.rglob("*") if name.endswith("/labhost") and path.is_dir() else ()
            for part in (path, *path.parents, *below):
                found.setdefault(str(part), _is_roots(part))
    return [name for name, is_roots in found.items() if not is_roots]


def _is_roots(path: Path) -> bool:
    status = os.lstat(path)
    sticky = bool(status.st_mode & stat.S_ISVTX) and stat.S_ISDIR(status.st_mode)
    open_to_others = bool(status.st_mode & 0o022) and not sticky and not stat.S_ISLNK(status.st_mode)
    return status.st_uid == 0 and not open_to_others
