"""Run a program to its end; if it fails, show all of its output."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

Completed = subprocess.CompletedProcess[str]


class CommandFailed(Exception):
    def __init__(self, argv: Sequence[str], code: int | str, output: str) -> None:
        self.argv, self.code, self.output = list(argv), code, output
        super().__init__(f"{' '.join(argv)}\nexit {code}\n{output[-4000:]}")


def run(
    argv: Sequence[str],
    *,
    stdin: str = "",
    timeout: float = 120,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Completed:
    """Output and errors as text; `CommandFailed` on another exit status than 0 (if `check`) or when time is up.

    Standard input is never the terminal: LXC's tools would wait for it.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=env,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(argv, f"none after {timeout} s", str(error.output)) from error
    if check and done.returncode:
        raise CommandFailed(argv, done.returncode, done.stdout + done.stderr)
    return done
