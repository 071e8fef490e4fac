"""The two images of every lab, built once and cached: a GPU server and the containers' template."""

import fcntl
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.progress import progress
from tests.lab.shell import run

CACHE = Path("/var/cache/lab-iam-lab")
REPOSITORY = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
SERVER_PACKAGES = (
    "systemd-sysv,dbus,libpam-systemd,openssh-server,sudo,iproute2,iptables,lxc,lxcfs,uidmap,python3,"
    "dnsmasq-base,curl,procps,ca-certificates,zstd,acl"
)
# Not needed on a GPU server of the lab, and slow or disturbing at boot.
QUIET = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer", "dpkg-db-backup.timer",
         "lxc-monitord.service", "e2scrub_reap.service", "getty@tty1.service")  # fmt: skip


def mirror() -> str:
    """The Debian mirror of this machine, so that images are built from the same source as its own packages."""
    for source in sorted(Path("/etc/apt").glob("sources.list*")) + sorted(Path("/etc/apt/sources.list.d").glob("*")):
        if source.is_file():
            found = re.search(
                r"(?:URIs:|^deb(?: \[.*?\])?)\s*(https?://\S*debian\S*)", source.read_text(), re.MULTILINE
            )
            if found and "security" not in found[1]:
                return found[1]
    return "http://deb.debian.org/debian"


def _kept(kind: str, recipe: str) -> Path:
    return CACHE / f"{kind}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


@contextmanager
def _one_builder() -> Iterator[None]:
    """A lock, so that two labs that boot at once build each image once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "building.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def server_image() -> Path:
    """The folder of a GPU server's root file system; shared read-only by all booted servers."""
    image = _kept("server", SUITE + SERVER_PACKAGES + Path(__file__).read_text())
    with _one_builder():
        if not image.is_dir():
            _build_server(image)
    return image


def _build_server(image: Path) -> None:
    making = CACHE / f"{image.name}.making"
    _forget(making)
    making.mkdir(parents=True)
    with progress("building the image of a GPU server (about 40 s, once)"):
        tar = making / "server.tar"
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        options = [f"--keyring={keyring}"] if Path(keyring).exists() else []
        run(["mmdebstrap", "--variant=minbase", *options, f"--include={SERVER_PACKAGES}", SUITE, str(tar), mirror()],
            timeout=900)  # fmt: skip
        root = making / "root"
        root.mkdir()
        run(["tar", "-xpf", str(tar), "-C", str(root), "--numeric-owner", "--exclude=./dev/*"], timeout=300)
        _prepare(root)
        root.rename(image)
    _forget(making)
    _forget_others("server", image)


def _prepare(root: Path) -> None:
    # Inside LXC the unit is skipped. A real server does not need this.
    drop_in = root / "etc/systemd/system/lxc-net.service.d/lab.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Unit]\nConditionVirtualization=\n")
    for unit in QUIET:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/machine-id").write_text("")
    (root / "etc/resolv.conf").write_text("")


def template() -> Path:
    """The containers' template as tar.zst, made by the project's own script."""
    script = REPOSITORY / "hostscripts/create-lxc-template.bash"
    image = _kept("template", SUITE + script.read_text())
    archive = image.with_suffix(".tar.zst")
    with _one_builder():
        if not archive.is_file():
            with progress("building the containers' template (about 40 s, once)"):
                run(["bash", str(script), "--suite", SUITE, "--mirror", mirror(), str(archive)], timeout=900)
            _forget_others("template", archive)
    return archive


def _forget_others(kind: str, keep: Path) -> None:
    """Remove old images, except one that a running server still uses as its lower layer."""
    mounts = Path("/proc/mounts").read_text()
    running = subprocess.run(
        ["grep", "-rhs", "overlay:", "/var/lib/lab-iam-lab"], capture_output=True, text=True
    ).stdout
    for old in CACHE.glob(f"{kind}-*"):
        if old != keep and str(old) not in mounts and str(old) not in running:
            _forget(old)


def _forget(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
