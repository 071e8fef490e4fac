"""Light servers, many on one machine: each a network namespace, an overlay of the server image and a real sshd.

The portal connects to real programs: sshd, sudo and the installed host programs, as in setup-gpu-server.bash. There is no
init; accounts and containers are folders as registration leaves them, and no container ever runs.
"""

import json
import os
import shutil
import signal
import sys
import tarfile
import time
from contextlib import suppress
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

from tests.lab.images import REPOSITORY
from tests.lab.namespace import BRIDGE
from tests.lab.processes import Daemon
from tests.lab.shell import run

SCRIPTS = REPOSITORY / "hostscripts"
FIRST_UID, FIRST_PORT, FIRST_SUBUID = 20_000, 22_000, 1_000_000_000
PREFIX = "labiam-bench-sync"

RUN = """
set -e
mount -t overlay overlay -o "lowerdir=$IMAGE,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
mount --bind "$FOLDER/home" "$FOLDER/root/home"
mount --bind "$FOLDER/state" "$FOLDER/root/var/lib/lab-iam"
mount -t proc proc "$FOLDER/root/proc"
mount --bind /dev "$FOLDER/root/dev"
mount -t tmpfs -o mode=755 tmpfs "$FOLDER/root/run"
mkdir -m 755 "$FOLDER/root/run/sshd"
hostname "$NAME"
ip link set lo up
exec chroot "$FOLDER/root" /usr/sbin/sshd -D -e
"""

HOST_CONF = """[portal]
url = http://127.0.0.1
token = {token}
[server]
name = {name}
address = {address}
"""


class Seed:
    """The common part of all light servers, prepared once: programs, accounts, homes and their state."""

    def __init__(self, folder: Path, people: list[str], iam_key: str, root_key: str) -> None:
        self.folder, self.people = folder, people
        self.iam_key, self.root_key = iam_key, root_key

    @property
    def host_key(self) -> str:
        return " ".join((self.folder / "upper/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])

    def make(self, image: Path) -> None:
        for part in ("upper/etc/ssh/sshd_config.d", "upper/etc/sudoers.d", "upper/etc/lab-iam", "upper/root/.ssh"):
            (self.folder / part).mkdir(parents=True)
        upper = self.folder / "upper"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(upper / "etc/ssh/ssh_host_ed25519_key")])
        _write(upper / "root/.ssh/authorized_keys", self.root_key, 0o600)
        (upper / "root").chmod(0o700)
        (upper / "root/.ssh").chmod(0o700)
        self._accounts(upper, image)
        self._programs(upper)
        self._homes()

    def _accounts(self, upper: Path, image: Path) -> None:
        shells = {"iam": "/home/iam/iam-shell.bash", "register": "/home/register/register.bash"}
        lines = [
            f"{name}:x:{990 + n}:{990 + n}::/home/{name}:{shell}" for n, (name, shell) in enumerate(shells.items())
        ]
        lines += [
            f"{name}:x:{FIRST_UID + n}:{FIRST_UID + n}:Lab IAM:/home/{name}:/public/login.bash"
            for n, name in enumerate(self.people)
        ]
        names = [*shells, *self.people]
        for file, mode, new in (
            ("passwd", 0o644, lines),
            ("shadow", 0o640, [f"{name}:*:20000:0:99999:7:::" for name in names]),
            ("group", 0o644, [f"{line.split(':')[0]}:x:{line.split(':')[3]}:" for line in lines]),
        ):
            old = (image / "etc" / file).read_text()
            _write(upper / "etc" / file, old + "".join(f"{line}\n" for line in new), mode)

    def _programs(self, upper: Path) -> None:
        for source, target, mode in (
            ("lab-iam.sudoers", "etc/sudoers.d/lab-iam", 0o440),
            ("lab-iam-sshd.conf", "etc/ssh/sshd_config.d/lab-iam.conf", 0o644),
            ("labhost-command.py", "usr/local/sbin/labhost", 0o755),
            ("new-lxc.bash", "root/new-lxc.bash", 0o755),
            ("login.bash", "public/login.bash", 0o755),
        ):
            (upper / target).parent.mkdir(parents=True, exist_ok=True)
            _write(upper / target, (SCRIPTS / source).read_text(), mode)
        library = upper / "usr/local/lib/lab-iam/labhost"
        shutil.copytree(SCRIPTS / "labhost", library, ignore=shutil.ignore_patterns("__pycache__"))
        run(["/usr/bin/python3", "-I", "-m", "compileall", "-q", str(library)])

    def _homes(self) -> None:
        """Pack them as archives: unpacking is the fastest way to create a hundred thousand folders."""
        users = {name: self._user(name, number) for number, name in enumerate(self.people)}
        with tarfile.open(self.folder / "home.tar", "w") as archive:
            for account, script in (("iam", "iam-shell.bash"), ("register", "register.bash")):
                _add(archive, account)
                _add(archive, f"{account}/.ssh")
                _add(archive, f"{account}/{script}", (SCRIPTS / script).read_text(), 0o755)
            _add(archive, "iam/set_authorized_keys.py", (SCRIPTS / "set_authorized_keys.py").read_text(), 0o755)
            _add(archive, "iam/.ssh/authorized_keys", f"restrict {self.iam_key}\n", 0o644)
            for name, user in users.items():
                path = name
                for part in ("", ".ssh", ".local", "share", "lxc", name):
                    path = f"{path}/{part}" if part else path
                    _add(archive, path)
                    path = name if part == ".ssh" else path
                for part in ("rootfs", "home"):
                    path = f"{path}/{part}"
                    _add(archive, path, owner=user["subuid"])
                _add(archive, f"{path}/{name}", owner=user["subuid"] + 1000)
        with tarfile.open(self.folder / "state.tar", "w") as archive:
            _add(archive, "users")
            for name, user in users.items():
                _add(archive, f"users/{name}.json", json.dumps(user), 0o600)

    def _user(self, name: str, number: int) -> dict[str, Any]:
        if str(SCRIPTS) not in sys.path:
            sys.path.insert(0, str(SCRIPTS))  # labhost is installed as a separate package
        from labhost.host.user_state import User

        user = User(
            name, uid=FIRST_UID + number, gid=FIRST_UID + number, account="created", registered=True, storage="dir"
        )
        user.port, user.subuid = FIRST_PORT + number % 8000, FIRST_SUBUID + 65536 * (number % 17000)
        user.container_uid = user.container_gid = 1000
        user.address = f"10.0.{3 + number // 200}.{10 + number % 200}"
        return asdict(user)


class LightServer:
    def __init__(self, number: int, folder: Path) -> None:
        self.name, self.folder = f"gpu{number:03}", folder / f"gpu{number:03}"
        self.address = f"172.16.{4 + number // 200}.{10 + number % 200}"
        self.namespace, self.wire = f"{PREFIX}-{number:03}", f"bench{number:03}"
        self.daemon = Daemon(f"sshd-{self.name}", folder)

    def make(self, image: Path, seed: Seed, hub: str) -> None:
        for part in ("work", "root", "home", "state"):
            (self.folder / part).mkdir(parents=True)
        (self.folder / "state").chmod(0o700)
        run(["cp", "-a", str(seed.folder / "upper"), str(self.folder / "upper")])
        upper = self.folder / "upper"
        (upper / "var/lib/lab-iam").mkdir(parents=True)
        _write(upper / "etc/hosts", f"127.0.0.1 localhost {self.name}\n", 0o644)
        _write(upper / "etc/lab-iam/host.conf", HOST_CONF.format(token="t" * 32, **vars(self)), 0o600)
        for part in ("home", "state"):
            run(["tar", "-xpf", str(seed.folder / f"{part}.tar"), "-C", str(self.folder / part), "--numeric-owner"])
        run(["ip", "netns", "add", self.namespace])
        wire = ["link", "add", self.wire, "type", "veth", "peer", "name", "eth0", "netns", self.namespace]
        run(["ip", "-n", hub, *wire])
        run(["ip", "-n", hub, "link", "set", self.wire, "master", BRIDGE, "up"])
        run(["ip", "-n", self.namespace, "address", "add", f"{self.address}/16", "dev", "eth0"])
        run(["ip", "-n", self.namespace, "link", "set", "eth0", "up"])
        words = ["nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "--mount", "--uts", "--pid", "--fork"]
        words += ["--kill-child", "--propagation", "private", "--", "/bin/sh", "-c", RUN]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "IMAGE": str(image)}
        self.daemon.start(words, env=env | {"FOLDER": str(self.folder), "NAME": self.name}, cwd=Path("/"))

    def key_files(self, people: list[str]) -> list[Path]:
        home = self.folder / "home"
        files = [home / "register/.ssh/authorized_keys"]
        for name in people:
            inside = home / name / f".local/share/lxc/{name}/rootfs/home/{name}"
            files += [home / name / ".ssh/authorized_keys", inside / ".ssh/authorized_keys"]
        return files

    def forget_keys(self, people: list[str]) -> None:
        for path in [*self.key_files(people), *(self.folder / "state").glob("keys.sqlite3*")]:
            path.unlink(missing_ok=True)

    def cut(self) -> None:
        """Cut all connections at once, as in a crash. Its sshd continues to listen."""
        for listener in _children(self.daemon.pid or 0):
            for pid in _descendants(listener):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def remove_all(folder: Path) -> bool:
    """Stop and remove every light server and their network. Returns False if there was nothing."""
    found = folder.exists()
    for record in folder.rglob("*.pid"):  # also those of a portal, after a bench that was killed
        Daemon(record.stem, record.parent).kill()
    for path in sorted(Path("/run/netns").glob(f"{PREFIX}-*")):
        found = True
        run(["ip", "netns", "delete", path.name], check=False)
    for _ in range(50):
        run(["rm", "-rf", "--", str(folder)], check=False, timeout=300)
        if not folder.exists():
            break
        time.sleep(0.1)
    return found


def _descendants(pid: int) -> list[int]:
    return [found for child in _children(pid) for found in (child, *_descendants(child))]


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _write(path: Path, text: str, mode: int) -> None:
    path.write_text(text)
    path.chmod(mode)


def _add(archive: tarfile.TarFile, path: str, text: str | None = None, mode: int = 0o755, owner: int = 0) -> None:
    entry = tarfile.TarInfo(path)
    entry.uid = entry.gid = owner
    entry.mode, entry.mtime = mode, 1_700_000_000
    if text is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    else:
        data = text.encode()
        entry.size = len(data)
        archive.addfile(entry, BytesIO(data))


def wait_until_listening(servers: list[LightServer]) -> None:
    from tests.lab.processes import wait_for_port

    for server in servers:
        wait_for_port(server.address, 22, server.daemon.log)


def wire_bytes(hub: str) -> int:
    """Bytes sent over the network of all servers, in both directions, headers included."""
    links = json.loads(run(["ip", "-n", hub, "-s", "-j", "link", "show", "type", "veth"]).stdout)
    return sum(link["stats64"][way]["bytes"] for link in links for way in ("rx", "tx"))


def memory_mb(pids: list[int]) -> float:
    """Proportional set size of these processes together, in which shared pages count once."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(text.split("Pss:", 1)[1].split()[0])
    return round(total / 1024, 1)


def peak_mb(pids: list[int]) -> float:
    """The highest resident set size of any of these processes so far, shared pages included."""
    peaks = [0]
    for pid in pids:
        with suppress(OSError):
            peaks.append(int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:", 1)[1].split()[0]))
    return round(max(peaks) / 1024, 1)


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes together, see proc(5)."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")
