"""What setup-gpu-server.bash leaves to Python: host.conf, the portal's key, and the check that the server is ready."""

import grp
import os
import stat
from pathlib import Path

from labhost.admin import sudoers
from labhost.errors import LabhostError, Refused
from labhost.gpu import nvidia
from labhost.host import Host, Paths, config
from labhost.keys import public_keys
from labhost.protocol.verbs import for_people
from labhost.storage import probe, quota, snapshot_store
from labhost.system import Progress, btrfs, files

# What root executes, or trusts as configuration: nobody else may write to it or to any folder above it.
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
    "/var/lib/lab-iam-templates",
    "/var/lib/lab-iam.img",
)


@for_people()
def configure(arguments: list[str], progress: Progress) -> None:
    """`section.key=value ...`, `token-file=FILE`, `iam-key=LINE`; other settings stay as they are."""
    paths = Paths()
    values = config.read_values(files.read_text(paths.config) or "")
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name == "token-file":
            values["portal.token"] = (files.read_text(Path(value), 4096) or "").strip()
        elif name == "iam-key":
            _write_iam_key(paths, value)
        elif equals and name in config.DEFAULTS:
            values[name] = value
        else:
            raise LabhostError(f"configure: {name} is not a known KEY=VALUE", reason="not_a_setting", argument=name)
    _choose_storage(paths, values, progress)
    text = config.render(values)
    config.parse(config.read_values(text))
    changed = files.write_atomic(paths.config, text, mode=0o600)
    progress.write(f"{'wrote' if changed else 'unchanged:'} {paths.config}")


def _choose_storage(paths: Paths, values: dict[str, str], progress: Progress) -> None:
    """With `auto`, or without a choice: overlay where it works. Existing containers keep their storage."""
    wanted = values.get("container.storage", "auto")
    if wanted not in ("auto", "overlay"):
        return
    first = config.parse({**values, "container.storage": "dir"}).server.subuids.first
    fault = probe.overlay_error(paths, first)
    if wanted == "overlay" and fault:
        text = f"--storage overlay: {fault}; use --storage dir, or Linux 5.19 with ext4, XFS or btrfs"
        raise Refused(text, reason="overlay_unavailable", detail=fault)
    if fault:
        progress.write(f"storage: dir, because overlay does not work here ({fault})")
    values["container.storage"] = "dir" if fault else "overlay"


def _write_iam_key(paths: Paths, line: str) -> None:
    arguments = line.split()
    try:
        key = public_keys.check_key(arguments[0] if arguments else "", arguments[1] if len(arguments) > 1 else "")
    except public_keys.BadKey as error:
        raise LabhostError(f"--iam-key: {error}", reason="bad_portal_key", detail=str(error)) from error
    files.write_atomic(paths.home / "iam/.ssh/authorized_keys", public_keys.render_iam(key), mode=0o644)


@for_people(0, 0)
def check(arguments: list[str], progress: Progress) -> None:
    """Refused with the first reason why this server is not ready for people."""
    host = config.load()
    check_policy(host)
    for path in untrusted():
        text = f"only root may be able to write to {path}: chown root, chmod go-w"
        raise Refused(text, reason="untrusted", path=path)
    snapshot_store.prepare(host)
    for name in host.unknown_settings:
        progress.write(f"warning: host.conf: {name} is unknown and ignored")
    shown = f"driver: {nvidia.host_version(host.config) or 'none'}, storage: {host.config.container.storage}"
    progress.write(f"{shown}, disk limits: {quota.kind_offered(host) or 'not enforced'}")


def check_policy(host: Host) -> None:
    """Refused if groups, sudo or the bridge are not set up correctly."""
    for group in host.config.container.groups:
        try:
            grp.getgrnam(group)
        except KeyError as error:
            text = f"the group {group} does not exist; create it or correct --groups"
            raise Refused(text, reason="no_group", group=group) from error
    free = sudoers.without_password(sudoers.read(), host.config.container.groups)
    if free:
        text = f"sudo needs no password from the group {free[0]}: remove NOPASSWD, or correct --groups"
        raise Refused(text, reason="sudo_without_password", group=free[0])
    if host.config.container.quota == "image" and btrfs.is_btrfs(host.paths.home):
        text = "on btrfs a disk image is never allocated for good: use --quota auto, which uses qgroups"
        raise Refused(text, reason="image_on_btrfs")
    bridge = host.config.container.bridge
    if not Path("/sys/class/net", bridge).exists():
        text = f"the bridge {bridge} does not exist; see systemctl status lxc-net"
        raise Refused(text, reason="no_bridge", bridge=bridge)


def untrusted() -> list[str]:
    """Paths among TRUSTED, below or above them, that accounts other than root can change."""
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
