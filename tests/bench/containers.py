"""`./lab bench containers`: how long people wait on a booted server, compared with the time of the parts alone."""

import argparse
import io
import json
import os
import shlex
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.figures import Figure, figure
from tests.lab import images
from tests.lab.lab import PEOPLE, Lab, only_one
from tests.lab.people import join
from tests.lab.progress import progress
from tests.lab.shell import run

NAME = "bench-containers"
SMALL, LARGE = 280 << 20, 1300 << 20  # bytes of the unpacked templates, about
AT_ONCE = 20
PIECE = 4 << 20
STATE, LARGE_STATE = "/var/lib/lab-iam", "/var/lib/lab-iam-templates"
GOALS = {
    "register_small_s": 1.2,
    "register_large_s": 1.2,
    "start_to_login_s": 1.5,
    "rebuild_s": 1.0,
    "register_20_at_once_s": 15.0,
}
# Starts the container with LXC's own command, waits for the banner of its sshd and prints the seconds.
FLOOR_START = """
import pwd, socket, subprocess, sys, time
name, address = sys.argv[1:]
who = pwd.getpwnam(name)
words = ["runuser", "-u", name, "--", "env", f"XDG_RUNTIME_DIR=/run/user/{who.pw_uid}"]
scope = ["systemd-run", "--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes", "--"]
began = time.monotonic()
subprocess.run([*words, *scope, "lxc-start", "-n", name], check=True, stdin=subprocess.DEVNULL, cwd="/")
while True:
    try:
        with socket.create_connection((address, 22), timeout=1) as peer:
            if peer.recv(4) == b"SSH-":
                break
    except OSError:
        time.sleep(0.005)
print(time.monotonic() - began)
subprocess.run([*words, "lxc-stop", "-n", name, "-k"], check=True, stdin=subprocess.DEVNULL, cwd="/")
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./lab bench containers", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each figure (5)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(arguments)
    people = [f"person{number:02}" for number in range(2 * options.runs + AT_ONCE)]
    PEOPLE.update({name: (name.title(), f"{name}-password") for name in people})
    with only_one(NAME):
        lab = Lab(NAME)
        if lab.exists:
            lab.remove()
        lab.servers.pop("gpu18")
        try:
            lab.make()
            figures = Bench(lab, people, options.runs).measure()
        finally:
            lab.remove()
    if options.json:
        print(json.dumps({key: round(value.median, 3) for key, value in figures.items()} | _spreads(figures)))
    else:
        _print(figures)
    return 0


def _spreads(figures: dict[str, Figure]) -> dict[str, object]:
    return {"spread": {key: [round(bound, 3) for bound in value.spread] for key, value in figures.items()}}


def _print(figures: dict[str, Figure]) -> None:
    for key, value in figures.items():
        goal = f"   at most {GOALS[key]}" if key in GOALS else ""
        print(f"{key:24} {value}{goal}")
    small, large = figures["register_small_s"].median, figures["register_large_s"].median
    start, floor = figures["start_to_login_s"].median, figures["floor_start_s"].median
    connections = figures["floor_connections_s"].median
    print(f"the larger template costs {large / small:.2f} x the smaller (at most 1.2)")
    print(f"start to login is {start / floor:.2f} x the floor (at most 2)")
    print(
        f"of it {connections:.2f} s are its two SSH connections, with which nothing is started; "
        f"without them it is {(start - connections) / floor:.2f} x the floor"
    )


class Bench:
    def __init__(self, lab: Lab, people: list[str], runs: int) -> None:
        self.lab, self.runs, self.machine = lab, runs, lab.servers["gpu17"]
        self.first, self.second, self.crowd = people[:runs], people[runs : 2 * runs], people[2 * runs :]
        self.nas = "/var/tmp/nas"

    def measure(self) -> dict[str, Figure]:
        found: dict[str, Figure] = {}
        with progress(f"{len(PEOPLE)} people join"), ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: join(self.lab, name), [*self.first, *self.second, *self.crowd]))
        self.machine.run(
            f"mkdir -p {self.nas}; /usr/local/sbin/labhost configure snapshots.folder={self.nas}; /usr/local/sbin/labhost check"
        )
        # Without the stand-in driver: its installation is not part of a start.
        self.machine.run("rm -f /usr/lib/x86_64-linux-gnu/libcuda.so*")
        found |= self._registrations()
        found |= self._days_work(self.first[0])
        found["register_20_at_once_s"] = figure([self._all_at_once()])
        order = ["register_small_s", "register_large_s", "start_to_login_s", "stop_s", "rebuild_s", "snapshot_s"]
        order += ["register_20_at_once_s", "floor_start_s", "floor_connections_s"]
        order += ["floor_unpack_small_s", "floor_unpack_large_s"]
        return {key: found[key] for key in order}

    def _registrations(self) -> dict[str, Figure]:
        """With both templates in turn, so that a busy machine slows down both."""
        times: dict[str, list[float]] = {}
        for label, size in (("large", LARGE), ("small", SMALL)):
            self._template(label, size)
            times[f"floor_unpack_{label}_s"] = [self._unpack() for _ in range(self.runs)]
        for large, small in zip(self.second, self.first, strict=True):
            for label, name in (("large", large), ("small", small)):
                self._use(label)
                times.setdefault(f"register_{label}_s", []).append(self._register(name))
        return {key: figure(seconds) for key, seconds in times.items()}

    def _days_work(self, name: str) -> dict[str, Figure]:
        """Start, stop, snapshot and rebuild of a used container."""
        self._start_to_login(name)
        address = self.machine.run(
            f'sed -n \'s/.*"address": "\\(.*\\)".*/\\1/p\' {STATE}/users/{name}.json'
        ).stdout.strip()
        times: dict[str, list[float]] = {key: [] for key in ("start_to_login_s", "stop_s", "rebuild_s", "snapshot_s")}
        floors, connections = [], []
        for _ in range(self.runs):
            times["stop_s"].append(self._manage(name, "stop"))
            floors.append(float(self.machine.run(f"python3 -c {shlex.quote(FLOOR_START)} {name} {address}").stdout))
            times["start_to_login_s"].append(self._start_to_login(name))
            connections.append(self._connections(name))
            times["snapshot_s"].append(self._manage(name, "snapshot"))
        for _ in range(self.runs):
            self._manage(name, "stop")
            code = self.lab.people[name].confirmation_code("gpu17", "rebuild")
            times["rebuild_s"].append(self._manage(name, f"rebuild {code}"))
            (self.lab.people[name].folder / ".ssh/known_hosts").unlink()
            self._start_to_login(name)
        times |= {"floor_start_s": floors, "floor_connections_s": connections}
        return {key: figure(seconds) for key, seconds in times.items()}

    def _register(self, name: str) -> float:
        return self._timed(lambda: self.lab.people[name].ssh("register@gpu17-manage", name, timeout=120))

    def _manage(self, name: str, *words: str) -> float:
        return self._timed(lambda: self.lab.people[name].ssh("gpu17-manage", *words))

    def _start_to_login(self, name: str) -> float:
        person = self.lab.people[name]
        return self._timed(lambda: (person.ssh("gpu17-manage"), person.ssh("gpu17", "true")))

    def _connections(self, name: str) -> float:
        """The two connections of a start and of the login after it, without any work."""
        person = self.lab.people[name]
        return self._timed(lambda: (person.ssh("gpu17-manage", "help"), person.ssh("gpu17", "true")))

    def _all_at_once(self) -> float:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return self._timed(lambda: list(pool.map(self._register, self.crowd)))

    def _unpack(self) -> float:
        """Unpack the current template with tar, on the file system of people's homes."""
        folder = "/home/.floor"
        command = f"rm -rf {folder}; mkdir {folder}"
        self.machine.run(command)
        unpack = f"zstd -dcq {STATE}/template.tar.zst | tar -xpf - -C {folder} --numeric-owner --exclude='./dev/*'"
        seconds = self._timed(lambda: self.machine.run(unpack, timeout=600))
        self.machine.run(f"rm -rf {folder}", timeout=600)
        return seconds

    def _timed(self, work: Callable[[], object]) -> float:
        began = time.monotonic()
        work()
        return time.monotonic() - began

    def _use(self, label: str) -> None:
        """Make the template with this label the current one, unpacked."""
        self.machine.run(
            f"cd {LARGE_STATE}; ln -f {label}.zst template.tar.zst; /usr/local/sbin/labhost templates; sync",
            timeout=900,
        )

    def _template(self, label: str, size: int) -> None:
        """Install the lab's template on the server, with files added up to `size` bytes, and unpack it there."""
        with progress(f"making a template of {size >> 20} MB"):
            folder = self.machine.folder / "templates"
            run(["zstd", "-dqf", str(images.template()), "-o", str(folder / "t.tar")])
            _pad(folder / "t.tar", size)
            run(
                ["zstd", "-q", "-1", "-T0", "-f", str(folder / "t.tar"), "-o", str(folder / f"{label}.zst")],
                timeout=600,
            )
            (folder / "t.tar").unlink()
            self._use(label)


def _pad(archive: Path, size: int) -> None:
    with tarfile.open(archive, "a") as tar:
        number = 0
        while archive.stat().st_size + PIECE < size:
            number += 1
            info = tarfile.TarInfo(f"./opt/software/{number:04}")
            info.size = PIECE
            # Compresses to about half, like software.
            tar.addfile(info, io.BytesIO(os.urandom(PIECE // 2) + bytes(PIECE // 2)))
