"""One GPU server: Debian with systemd, sshd, lxc and iptables, booted as a privileged LXC container."""

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.lab.namespace import BRIDGE
from tests.lab.shell import CommandFailed, Completed, run

# A container that can itself run unprivileged containers. Because of the two mounts below dev/.lxc the kernel
# allows proc and sysfs in the inner container's user namespace.
CONFIG = """
lxc.uts.name = {name}
lxc.rootfs.path = overlay:{image}:{folder}/upper
lxc.apparmor.profile = unconfined
lxc.cap.drop =
lxc.mount.auto = proc:rw sys:rw
lxc.init.cmd = /sbin/init systemd.unified_cgroup_hierarchy=1
lxc.environment = container=lxc
lxc.tty.max = 0
lxc.pty.max = 1024
lxc.net.0.type = veth
lxc.net.0.script.up = {folder}/join-bridge
lxc.net.0.flags = up
lxc.net.0.hwaddr = {mac}
lxc.net.0.ipv4.address = {address}/24
lxc.net.0.ipv4.gateway = {gateway}
lxc.mount.entry = proc dev/.lxc/proc proc create=dir,optional 0 0
lxc.mount.entry = sys dev/.lxc/sys sysfs create=dir,optional 0 0
lxc.mount.entry = {folder}/home home none bind,create=dir 0 0
lxc.mount.entry = {folder}/templates var/lib/lab-iam-templates none bind,create=dir 0 0
"""


LOOP_DEVICES = 64  # of the whole machine; a server's own /dev shows no new ones


class Machine:
    """`folder` holds all that differs from the image; the overlay cannot itself lie on an overlay."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name, self.address, self.folder = name, address, folder

    def _lxc(self, tool: str, *arguments: str) -> list[str]:
        """LXC's tools communicate over an abstract socket: they find each other only within one network namespace."""
        return [tool, "-P", str(self.folder.parent), "-n", self.name, *arguments]

    @property
    def root(self) -> Path:
        """The overlay's upper layer: files put here before the boot are seen by the server."""
        return self.folder / "upper"

    @property
    def mac(self) -> str:
        """The same after each reboot, as of a real network card: neighbours remember it."""
        return "02:16:" + ":".join(f"{int(part):02x}" for part in self.address.split("."))

    def create(self, image: Path, *, gateway: str, hosts: dict[str, str], root_key: str) -> None:
        """Prepare a fresh server that accepts the key `root_key` for root."""
        for part in ("upper/etc/ssh", "upper/root/.ssh", "upper/etc/tmpfiles.d", "home", "templates"):
            (self.folder / part).mkdir(parents=True)
        (self.folder / "templates").chmod(0o700)
        loops = [f"b /dev/loop{number} 0660 root disk - 7:{number}" for number in range(LOOP_DEVICES)]
        loops.append("c /dev/loop-control 0660 root disk - 10:237")
        (self.root / "etc/tmpfiles.d/loop.conf").write_text("\n".join(loops) + "\n")
        (self.root / "root/.ssh").chmod(0o700)
        (self.root / "root").chmod(0o700)
        keys = self.root / "root/.ssh/authorized_keys"
        keys.write_text(root_key)
        keys.chmod(0o600)
        (self.root / "etc/hostname").write_text(f"{self.name}\n")
        # Without its own name in the file each sudo would wait ten seconds for a resolver.
        lines = [f"127.0.0.1 localhost {self.name}"] + [f"{ip} {name}" for name, ip in hosts.items()]
        (self.root / "etc/hosts").write_text("\n".join(lines) + "\n")
        run(["ssh-keygen", "-q", "-A", "-f", str(self.root)])
        # `lxc.net.0.link` would look for the bridge in /sys, which shows another network namespace than ours.
        join = self.folder / "join-bridge"
        join.write_text(f'#!/bin/sh\nexec ip link set "$5" master {BRIDGE} up\n')
        join.chmod(0o755)
        settings = {"name": self.name, "image": image, "folder": self.folder}
        (self.folder / "config").write_text(
            CONFIG.format(**settings, mac=self.mac, address=self.address, gateway=gateway)
        )

    def boot(self, timeout: float = 60) -> None:
        """Start it and wait until systemd reports that it is up."""
        log = self.folder / "lxc.log"
        try:
            run(self._lxc("lxc-start", "-d", "-o", str(log), "-l", "WARN"), timeout=timeout)
        except CommandFailed as error:
            tail = log.read_text()[-2000:] if log.exists() else ""
            raise CommandFailed(error.argv, error.code, error.output + tail) from error
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            state = self.run("systemctl is-system-running; systemctl is-active ssh", check=False).stdout.split()
            if state[:1] in (["running"], ["degraded"]) and state[-1:] == ["active"]:
                return
            time.sleep(0.1)
        raise CommandFailed(["boot", self.name], "none", f"systemd reports {state} after {timeout} s")

    def run(self, command: str, *, stdin: str = "", check: bool = True, timeout: float = 120) -> Completed:
        """Run a bash command line as root of the server. Only for tests, which inspect and break things with it."""
        argv = self._lxc("lxc-attach", "--clear-env", "--set-var", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "--")
        return run([*argv, "bash", "-c", command], stdin=stdin, check=check, timeout=timeout)

    def file(self, path: str) -> str:
        return self.run(f"cat -- '{path}'").stdout

    def status(self, path: str) -> str:
        """Owner, group and mode of a file, as `root root 644`."""
        return self.run(f"stat -c '%U %G %a' -- '{path}'").stdout.strip()

    @property
    def running(self) -> bool:
        return run(self._lxc("lxc-info", "-sH"), check=False).stdout.strip() == "RUNNING"

    @property
    def inits(self) -> list[int]:
        """Its first process as the kernel knows it, by its root file system.

        LXC answers in the right network namespace only, and reports STARTING or STOPPING for a server that is half up.
        """
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"upperdir={self.root}," in (process / "mountinfo").read_text() and _is_first(process):
                    found.append(int(process.name))
        return found

    def stop(self) -> None:
        """Power off at once, as in a power cut, also a server that is only half up."""
        for init in self.inits:
            with suppress(ProcessLookupError):
                os.kill(init, signal.SIGKILL)  # everything in its process namespace ends with it
        end = time.monotonic() + 60
        while self.running or self.inits:
            if time.monotonic() >= end:
                raise CommandFailed(["stop", self.name], "none", "it still runs after 60 s")
            time.sleep(0.02)

    def reboot(self) -> None:
        self.stop()
        self.boot()

    def delete(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_first(process: Path) -> bool:
    """True for process 1 of a process namespace right below this one, see NSpid in proc(5)."""
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    own = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    numbers = status["NSpid"].split()
    return len(numbers) == len(own["NSpid"].split()) + 1 and numbers[-1] == "1"
