"""The NVIDIA user-space driver, which must have the same version in a container as on the host.

Versions are read from the name that libcuda.so.1 links to. The host executes nothing from a container, and follows its
links only within its root file system.
"""

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from labhost import lxc
from labhost.errors import LabhostError
from labhost.host import Config, Host, User
from labhost.storage import drivers
from labhost.system import Account, Progress, finish, openat2, spawn

LIBRARIES = tuple(map(Path, ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")))
NVIDIA_SMI = Path("/usr/bin/nvidia-smi")
HOPS = 8  # Debian's packages reach the library through several links
_LIBCUDA = re.compile(r"libcuda\.so\.([0-9]{1,4}(?:\.[0-9]{1,4}){1,3})", re.ASCII)
_DEVICE = re.compile(r"nvidia[A-Za-z0-9_-]{0,40}", re.ASCII)
_LIBRARY = re.compile(
    r"lib(?:cuda|cudadebugger|nvcuvid|nvoptix|nvidia-[a-z0-9-]+|(?:EGL|GLX|GLESv1_CM|GLESv2)_nvidia)\.so[0-9.]*",
    re.ASCII,
)
_GPU = re.compile(r"nvidia([0-9]{1,2})", re.ASCII)
_INSTALL = """
set -eu
cd /tmp
file=$(mktemp /tmp/nvidia-driver.XXXXXX)
trap 'rm -f "$file"' EXIT
cat > "$file"
chmod 700 "$file"
"$file" --no-kernel-module --silent
"""


def host_version(config: Config) -> str:
    """For example 535.104.05; empty if this server has no driver."""
    for folder in config.driver.libraries or LIBRARIES:
        if match := _LIBCUDA.fullmatch(os.path.basename(os.path.realpath(folder / "libcuda.so.1"))):
            return match[1]
    return ""


def container_version(host: Host, user: User) -> str:
    """The version in a person's container; empty if it has no driver, or there is no container."""
    rootfs = drivers.driver_of(host, user).rootfs(user)
    return version_in_rootfs(rootfs) if rootfs.is_dir() else ""


def version_in_rootfs(rootfs: Path) -> str:
    """The version in a root file system; empty if it has no driver or hides it."""
    with openat2.directory(rootfs) as root:
        for folder in LIBRARIES:
            if version := _linked_version(root, f"{str(folder).lstrip('/')}/libcuda.so.1"):
                return version
    return ""


def _linked_version(root: int, path: str) -> str:
    for _ in range(HOPS):
        target = openat2.link_target(root, path)
        if not target:
            return ""
        if match := _LIBCUDA.fullmatch(os.path.basename(target)):
            return match[1]
        path = target if target.startswith("/") else f"{path.rpartition('/')[0]}/{target}"
    return ""


def mounts(config: Config, gpus: frozenset[int] | None = None) -> list[str]:
    """LXC mount entries: the device nodes, and with `mode = bind` the host's libraries too.

    `gpus` are the numbers of the GPUs that the container may use, None for all. In a user namespace nobody can create
    device nodes, so what is not mounted cannot be opened.
    """
    version = host_version(config)
    entries = [
        lxc.mount_entry(str(path), f"/dev/{path.relative_to(config.driver.devices)}", file=True)
        for path in _devices(config)
        if gpus is None or _is_allowed(path.name, gpus)
    ]
    bound = _bound_files(config) if version and config.driver.mode == "bind" else {}
    return entries + [lxc.mount_entry(str(path), f"/{to}", file=True, read_only=True) for to, path in bound.items()]


def _is_allowed(name: str, gpus: frozenset[int]) -> bool:
    """A GPU's node if its number is in `gpus`; shared nodes (nvidiactl, ...) if there is any GPU."""
    gpu = _GPU.fullmatch(name)
    return int(gpu[1]) in gpus if gpu else bool(gpus)


def _devices(config: Config) -> list[Path]:
    try:
        nodes = sorted(path for path in config.driver.devices.iterdir() if _DEVICE.fullmatch(path.name))
    except OSError:
        return []
    caps = [node for path in nodes if path.is_dir() for node in sorted(path.iterdir()) if _DEVICE.fullmatch(node.name)]
    return [path for path in (*nodes, *caps) if stat.S_ISCHR(os.lstat(path).st_mode)]


def _bound_files(config: Config) -> dict[str, Path]:
    """With `mode = bind`: paths in the container -> files of the host, one for each name that programs open."""
    folder = next(path for path in config.driver.libraries or LIBRARIES if (path / "libcuda.so.1").is_symlink())
    target = f"usr/lib/{os.uname().machine}-linux-gnu"
    found = {f"{target}/{path.name}": path for path in sorted(folder.iterdir()) if _LIBRARY.fullmatch(path.name)}
    found["usr/bin/nvidia-smi"] = NVIDIA_SMI
    return {target: Path(os.path.realpath(path)) for target, path in found.items() if path.is_file()}


def remove_stale_links(host: Host, user: User) -> None:
    """Removes the symbolic links that an installed driver left where the host's files are mounted.

    LXC refuses to mount over a symbolic link. The container is stopped; only links of these names are removed.
    """
    if not host_version(host.config) or host.config.driver.mode != "bind":
        return
    with openat2.directory(drivers.driver_of(host, user).rootfs(user)) as root:
        for target in _bound_files(host.config):
            folder, _, name = target.rpartition("/")
            with suppress(LabhostError, OSError), openat2.subdirectory(root, folder) as parent:
                if stat.S_ISLNK(os.lstat(name, dir_fd=parent).st_mode):
                    os.unlink(name, dir_fd=parent)


def install_matching_driver(host: Host, user: User, account: Account, progress: Progress) -> None:
    """Installs the host's version in a running container. Never fails a start; takes at most `[driver] seconds`."""
    wanted = host_version(host.config)
    if not wanted:
        progress.write("driver: none on this server")
        return
    if host.config.driver.mode == "bind":
        progress.write(f"driver: {wanted}, shared by the server")
        return
    found = container_version(host, user)
    if found == wanted:
        progress.write(f"driver: {wanted}")
        return
    installer = installer_of(host.config, wanted)
    if not installer.is_file():
        lacking = f"the container lacks driver {wanted}, and {installer} is missing"
        progress.write(f"warning: {lacking}; tell the lab's staff")
        return
    versions = f"{found or 'none'} in the container, {wanted} on the server"
    progress.write(f"driver: {versions}; installing it, which takes a while")
    with progress.spinner("installing the driver"):
        reason = _install(host, account, installer)
    if not reason and container_version(host, user) != wanted:
        reason = "the installer succeeded but left another version"
    progress.write(f"warning: driver not installed: {reason}" if reason else f"driver: {wanted} installed")


def installer_of(config: Config, version: str) -> Path:
    return config.driver.installers / f"NVIDIA-Linux-{os.uname().machine}-{version}.run"


def _install(host: Host, account: Account, installer: Path) -> str:
    """Why it failed, or an empty text. The container gets a pipe, never a descriptor of one of the host's files."""
    with open(installer, "rb") as program:
        feeder = spawn(["/bin/cat"], account=account, stdin=program)
    assert feeder.stdout is not None
    command = ["/bin/sh", "-c", _INSTALL]
    result = lxc.attach(host, account, command, timeout=host.config.driver.seconds, stdin=feeder.stdout)
    finish(feeder, ["cat"], timeout=5)
    return "" if result.ok else f"the installer: {result.error_line}"
