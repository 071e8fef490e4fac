"""A whole Debian under emulation, for tests that need another kernel than this machine's. Slow: for a few tests.

It boots into one script, which runs tests of this repository and reports on the serial console; it has no network.
"""

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

from tests.lab import images
from tests.lab.progress import progress
from tests.lab.shell import run

PACKAGES = "linux-image-cloud-amd64,initramfs-tools,kmod,zstd,python3,mount,e2fsprogs,xfsprogs,btrfs-progs"
PYTEST = ("iniconfig", "packaging", "pluggy", "pytest", "_pytest", "py.py", "pygments")
END = "the tests ended with "
# Of the machine: it only runs the script that lies on the second disk.
_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run; mount /dev/vdb /mnt
sh /mnt/run; sync; echo o > /proc/sysrq-trigger; sleep 60
"""
_RUN = """cd /mnt
export PYTHONPATH=/mnt/site:/mnt:/mnt/hostscripts PYTHONDONTWRITEBYTECODE=1 {environment}
python3 -m pytest -q -c pytest.ini --noconftest -p no:cacheprovider --basetemp=/mnt/tmp {tests}
echo "{end}$?"
"""


def run_tests(folder: Path, *tests: str, timeout: float, **environment: str) -> tuple[int, str]:
    """Run test files that need no conftest; their exit status and output. `folder` needs 4 GB."""
    system = _system()
    _put_repository(folder / "tree")
    settings = " ".join(f"{name}='{value}'" for name, value in environment.items())
    (folder / "tree/run").write_text(_RUN.format(environment=settings, tests=" ".join(tests), end=END))
    _make_disk(folder / "tree", folder / "disk.img")
    command = [
        "qemu-system-x86_64",
        "-M",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-m",
        "1500",
        "-smp",
        "2",
    ]
    command += ["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-nic", "none"]
    command += ["-kernel", str(system / "vmlinuz"), "-initrd", str(system / "initrd.img")]
    command += [
        "-append",
        "console=ttyS0 root=/dev/vda rw quiet mitigations=off no_timer_check panic=-1 init=/init-tests",
    ]
    for disk, options in ((system / "disk.img", "snapshot=on"), (folder / "disk.img", "cache=unsafe")):
        command += ["-drive", f"file={disk},if=virtio,format=raw,{options}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    output = done.stdout + done.stderr
    found = re.search(rf"{END}(\d+)", output)
    return (int(found[1]) if found else -1), output


def _system() -> Path:
    """A folder with its kernel and its disk, built once."""
    target = images.CACHE / f"emulated-{images.SUITE}"
    if not (target / "disk.img").exists():
        making = target.with_suffix(".making")
        for old in (making, target):
            shutil.rmtree(old, ignore_errors=True)
        making.mkdir(parents=True)
        with progress("building the emulated machine (about a minute, once)"):
            options = ["--variant=minbase", f"--include={PACKAGES}", "--aptopt=Apt::Install-Recommends false"]
            run(["mmdebstrap", *options, images.SUITE, str(making / "tree"), images.mirror()], timeout=900)
            _finish(making)
        making.rename(target)
    return target


def _finish(folder: Path) -> None:
    tree = folder / "tree"
    (tree / "init-tests").write_text(_INIT)
    (tree / "init-tests").chmod(0o755)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(next((tree / "boot").glob(f"{name}-*")), folder / name)
    _make_disk(tree, folder / "disk.img")
    shutil.rmtree(tree)


def _make_disk(tree: Path, disk: Path) -> None:
    run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(disk), "4G"], timeout=300)


def _put_repository(target: Path) -> None:
    """The host programs and their tests, and pytest from this environment."""
    packages = Path(sysconfig.get_paths()["purelib"])
    for name in PYTEST:
        if (packages / name).is_dir():
            shutil.copytree(packages / name, target / "site" / name)
        else:
            (target / "site").mkdir(parents=True, exist_ok=True)
            shutil.copy(packages / name, target / "site" / name)
    shutil.copytree(images.REPOSITORY / "hostscripts/labhost", target / "hostscripts/labhost")
    (target / "tests/hostscripts").mkdir(parents=True)
    for path in ("tests/__init__.py", *map(str, _host_tests())):
        shutil.copy(images.REPOSITORY / path, target / path)
    (target / "pytest.ini").write_text("[pytest]\nmarkers = root\n")


def _host_tests() -> list[Path]:
    found = (images.REPOSITORY / "tests/hostscripts").glob("*.py")
    return [path.relative_to(images.REPOSITORY) for path in found if path.name != "conftest.py"]
