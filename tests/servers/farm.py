"""A real sshd on many loopback addresses; each address is one GPU server of the tests."""

import getpass
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from servers.ssh import host_keys, portal_key
from servers.ssh.dial import Endpoint

DOOR = Path(__file__).with_name("host_door.py")
ROOT = Path(__file__).resolve().parents[2]
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 22)]
MOST_ADDRESSES = 16  # of one sshd


def free_port() -> int:
    with socket.socket() as line:
        line.bind(("", 0))
        port: int = line.getsockname()[1]
        return port


class Farm:
    def __init__(self, folder: Path, addresses: list[str] = ADDRESSES) -> None:
        self.folder, self.port, self.addresses = folder, free_port(), addresses
        self.user = getpass.getuser()
        self.iam_key = folder / "portal_ed25519"
        public = portal_key.create(self.iam_key)
        (folder / "authorized_keys").write_text(f"restrict {public}\n")
        self.host_key = self._make_key("ed25519")
        self.rsa_host_key = self._make_key("rsa")
        self._processes: list[subprocess.Popen[bytes]] = []

    def keys_database(self, address: str = ADDRESSES[0]) -> Path:
        return self.folder / address / "state/keys.sqlite3"

    def applied_revision(self, address: str = ADDRESSES[0]) -> int:
        with closing(sqlite3.connect(self.keys_database(address))) as database:
            return int(database.execute("SELECT revision FROM push").fetchone()[0])

    def change_applied(self, column: str, value: object, address: str = ADDRESSES[0]) -> None:
        """Change a value as if the host had applied another push."""
        with closing(sqlite3.connect(self.keys_database(address), isolation_level=None)) as database:
            database.execute(f"UPDATE push SET {column} = ?", (value,))

    def _make_key(self, kind: str) -> str:
        path = self.folder / f"host_{kind}"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
        return host_keys.canonical(path.with_suffix(".pub").read_text())

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd requires it
        self._processes = [self._hosts()]
        for first in range(0, len(self.addresses), MOST_ADDRESSES):
            self._processes.append(self._sshd(self.addresses[first : first + MOST_ADDRESSES]))
        for number, process in enumerate(self._processes[1:]):
            self._wait_for(self.addresses[number * MOST_ADDRESSES], process)

    def _hosts(self) -> subprocess.Popen[bytes]:
        log = (self.folder / "hosts.log").open("ab")
        words = [sys.executable, "-m", "tests.servers.ready_hosts", str(self.folder)]
        process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 20
        while not (self.folder / "hosts").exists():
            assert process.poll() is None and time.monotonic() < end, (self.folder / "hosts.log").read_text()
            time.sleep(0.02)
        return process

    def _sshd(self, addresses: list[str]) -> subprocess.Popen[bytes]:
        lines = [
            *(f"ListenAddress {address}:{self.port}" for address in addresses),
            f"HostKey {self.folder}/host_ed25519",
            f"HostKey {self.folder}/host_rsa",
            f"AuthorizedKeysFile {self.folder}/authorized_keys",
            f"ForceCommand {sys.executable} -I -S {DOOR} {self.folder}/hosts",
            "PidFile none",
            f"SetEnv HOME={self.folder}",  # bash reads ~/.bashrc under sshd too: not that of the account that runs the tests
            "UsePAM no",
            "StrictModes no",
            "PasswordAuthentication no",
            "PermitRootLogin yes",
            "MaxStartups 100",
        ]
        config = self.folder / f"sshd_config_{addresses[0]}"
        config.write_text("".join(f"{line}\n" for line in lines))
        log = (self.folder / "sshd.log").open("ab")
        words = [shutil.which("sshd", path="/usr/sbin:/usr/bin") or "sshd", "-D", "-e", "-f", str(config)]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _wait_for(self, address: str, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end and process.poll() is None:
            with socket.socket() as line:
                if line.connect_ex((address, self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError(self.log())

    def log(self) -> str:
        return (self.folder / "sshd.log").read_text()

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
            process.wait(10)

    def reset(self) -> None:
        """Empty all hosts and let them behave normally."""
        for address in self.addresses:
            shutil.rmtree(self.folder / address, ignore_errors=True)
            for name in ("state", "home/register/.ssh"):
                (self.folder / address / name).mkdir(parents=True)
            self.behave(address, "labhost")

    def behave(self, address: str, behaviour: str) -> None:
        (self.folder / address / "behaviour").write_text(behaviour)

    def endpoint(self, address: str = ADDRESSES[0], host_key: str | None = None) -> Endpoint:
        return Endpoint("gpu17", address, self.port, self.host_key if host_key is None else host_key)

    def commands(self, address: str = ADDRESSES[0]) -> list[str]:
        """The commands that arrived there, in order."""
        return [line.split(" ", 2)[2].rstrip("\n") for line in self._log(address)]

    def pids(self, address: str = ADDRESSES[0]) -> list[int]:
        return [int(line.split()[0]) for line in self._log(address)]

    def register_file(self, address: str = ADDRESSES[0]) -> str:
        """The authorized_keys of `register` that labhost wrote there."""
        path = self.folder / address / "home/register/.ssh/authorized_keys"
        return path.read_text() if path.exists() else ""

    def _log(self, address: str) -> list[str]:
        path = self.folder / address / "commands"
        return path.read_text().splitlines(keepends=True) if path.exists() else []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it ended before it could be read
        return False


def gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not is_alive(pid):
            return True
        time.sleep(0.05)
    return False
