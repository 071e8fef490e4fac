"""The time that OpenSSH itself needs on this machine: the same number of `ssh HOST true`, all at once."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.light import LightServer

OPTIONS = ["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"]


class Floor:
    def __init__(self, servers: list[LightServer], key: Path, host_key: str, folder: Path) -> None:
        self.servers, self.folder = servers, folder
        known = folder / "known_hosts"
        known.write_text("".join(f"{server.address} {host_key}\n" for server in servers))
        self._words = ["ssh", *OPTIONS, "-i", str(key), "-o", f"UserKnownHostsFile={known}"]

    def cold(self) -> float:
        return self._all(lambda server: [*self._words, f"root@{server.address}", "true"])

    def open(self) -> None:
        for server in self.servers:
            words = [*self._words, "-M", "-N", "-f", "-S", self._socket(server), f"root@{server.address}"]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def warm(self) -> float:
        return self._all(lambda server: [*self._words, "-S", self._socket(server), f"root@{server.address}", "true"])

    def close(self) -> None:
        for server in self.servers:
            words = [*self._words, "-S", self._socket(server), "-O", "exit", f"root@{server.address}"]
            subprocess.run(words, check=False, capture_output=True)

    def _socket(self, server: LightServer) -> str:
        return str(self.folder / f"{server.name}.mux")

    def _all(self, words: Callable[[LightServer], list[str]]) -> float:
        began = time.monotonic()
        running = [
            subprocess.Popen(words(server), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            for server in self.servers
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            raise RuntimeError(f"ssh HOST true ended with {codes}")
        return time.monotonic() - began
