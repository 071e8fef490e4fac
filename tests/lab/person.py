"""A person with a home and a real OpenSSH client."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.shell import CommandFailed, Completed, run
from tests.lab.terminal import Terminal


class Person:
    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    @property
    def config(self) -> Path:
        return self.folder / ".ssh/config"

    def create(self) -> None:
        (self.folder / ".ssh").mkdir(parents=True, mode=0o700)
        self.config.touch()
        self.make_key("id_ed25519")

    def make_key(self, name: str, kind: str = "ed25519") -> str:
        """A new key pair ~/.ssh/NAME; returns the public line."""
        path = self.folder / ".ssh" / name
        run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"{self.name}@laptop", "-f", str(path)])
        return Path(f"{path}.pub").read_text()

    @property
    def public_key(self) -> str:
        return (self.folder / ".ssh/id_ed25519.pub").read_text()

    def argv(self, *arguments: str, key: str = "id_ed25519") -> list[str]:
        """The command that their terminal would run. New host keys are accepted, changed ones refused."""
        options = {
            "IdentityFile": str(self.folder / ".ssh" / key),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.folder / ".ssh/known_hosts"),
            "StrictHostKeyChecking": "accept-new",
            "ConnectTimeout": "10",
            "LogLevel": "ERROR",
        }
        flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return ["ssh", "-F", str(self.config), *flags, *arguments]

    def ssh(
        self,
        *arguments: str,
        key: str = "id_ed25519",
        check: bool = True,
        stdin: str = "",
        timeout: float = 60,
    ) -> Completed:
        """Run ssh without a terminal."""
        argv = self.argv("-o", "BatchMode=yes", *arguments, key=key)
        return run(argv, check=check, stdin=stdin, timeout=timeout)

    def ssh_confirmed(self, server: str, words: str, *, check: bool = True, timeout: float = 120) -> Completed:
        """A command that asks for confirmation, run with the confirmation code that its first output shows."""
        return self.ssh(
            f"{server}-manage", f"{words} {self.confirmation_code(server, words)}", check=check, timeout=timeout
        )

    def confirmation_code(self, server: str, words: str) -> str:
        asked = self.ssh(f"{server}-manage", words, check=False)
        match = re.search(rf"{server}-manage {re.escape(words)} ([a-z0-9]{{8}})\n", asked.stdout)
        if asked.returncode != 3 or match is None:
            raise CommandFailed(["ssh", f"{server}-manage", words], asked.returncode, asked.stdout + asked.stderr)
        return match[1]

    @contextmanager
    def on_a_terminal(self, *arguments: str) -> Iterator[Terminal]:
        """ssh on its own terminal (`ssh -t`), with simulated typing."""
        with Terminal(self.argv("-tt", *arguments)) as terminal:
            yield terminal

    def terminal(self, *arguments: str) -> int:
        """Run ssh on this terminal, for a person who tries the demo."""
        return subprocess.call(self.argv(*arguments))
