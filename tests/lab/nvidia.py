"""A stand-in for a GPU and its driver, for machines without one.

It has the names, version numbers, device nodes and the installer's command line of the real driver, but
no function. What the host programs do with it is real.
"""

from tests.lab.machine import Machine

VERSION = "535.104.05"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
DEVICES = {"nvidia0": (195, 0), "nvidiactl": (195, 255), "nvidia-uvm": (511, 0)}
INSTALLER = f"""#!/bin/sh
# Stand-in for the NVIDIA installer: the same command line, only the libraries' names.
set -eu
[ "$*" = "--no-kernel-module --silent" ] || {{ echo "unexpected arguments: $*" >&2; exit 1; }}
rm -f /{LIBRARIES}/libcuda.so.*
echo "stand-in {VERSION}" > /{LIBRARIES}/libcuda.so.{VERSION}
ln -sf libcuda.so.{VERSION} /{LIBRARIES}/libcuda.so.1
# Prints in which user namespace and with which id it ran, so that a test can see that it was the container's.
cat /proc/self/uid_map > /var/log/nvidia-installer.log
"""
USERS = "/run/stand-in-nvidia-smi"
SMI = f"""#!/bin/sh
# Stand-in for nvidia-smi: one GPU that does not exist; its processes are read from {USERS} as lines "pid, MB".
case "$*" in
  --query-gpu=*) echo "0, GPU-stand-in-0, stand-in for a GPU, 87, 10240, 40960" ;;
  --query-compute-apps=*) if [ -e {USERS} ]; then sed "s/^/GPU-stand-in-0, /" {USERS}; fi ;;
  *) echo "stand-in for nvidia-smi {VERSION}" ;;
esac
"""


def prepare(machine: Machine) -> None:
    """The host's driver libraries, nvidia-smi and the folder of installers, before the boot."""
    libraries = machine.root / LIBRARIES
    libraries.mkdir(parents=True)
    (libraries / f"libcuda.so.{VERSION}").write_text(f"stand-in {VERSION}\n")
    (libraries / "libcuda.so.1").symlink_to(f"libcuda.so.{VERSION}")
    smi = machine.root / "usr/bin/nvidia-smi"
    smi.parent.mkdir(parents=True, exist_ok=True)
    smi.write_text(SMI)
    smi.chmod(0o755)
    installers = machine.root / "public/nvidia"
    installers.mkdir(parents=True)
    (installers / f"NVIDIA-Linux-x86_64-{VERSION}.run").write_text(INSTALLER)


def make_devices(machine: Machine) -> None:
    """Device nodes with NVIDIA's numbers. A boot empties /dev, so call this after it."""
    for name, (major, minor) in DEVICES.items():
        machine.run(f"[ -e /dev/{name} ] || mknod -m 666 /dev/{name} c {major} {minor}")
