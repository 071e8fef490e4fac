"""What `./lab` does once Python is there: `python -m tests.lab COMMAND`."""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

from tests.lab.images import REPOSITORY
from tests.lab.report import summary

# The only addresses besides loopback that a test may reach: those of the lab, in a namespace of its own.
LAB_NETWORK = "172.16.2.0/24"

# What these have to do with is no database, but files, sockets and words alone; they would be the same once more.
WITHOUT_DATABASE = ("host", "host_keys", "messages", "portal_key", "ssh_config")
# What writes from several threads or processes at once, or hands foreign text to the database, runs there as well, and
# all that has a part in the delivery of keys: a new file of tests/servers runs on both without being named.
ON_POSTGRESQL = [
    *(f"tests/accounts/test_{name}.py" for name in ("keys_service", "models", "numbers", "people", "sign_in")),
    *(
        f"tests/servers/{path.name}"
        for path in sorted((REPOSITORY / "tests/servers").glob("test_*.py"))
        if path.stem.removeprefix("test_") not in WITHOUT_DATABASE
    ),
]


def main(command: str, arguments: list[str]) -> int:
    match command:
        case "test-unit":
            return _unit(arguments)
        case "test":
            return _all(arguments)
        case "run":
            from tests.lab.alone import serve

            return serve()
        case "bench":
            return _bench(arguments)
        case "demo" | "down" | "ssh":
            return _lab(command, arguments)
    raise SystemExit(f"lab: unknown command {command}")


def _lab(command: str, arguments: list[str]) -> int:
    from tests.lab.demo import demo
    from tests.lab.kernel import KernelLacks
    from tests.lab.lab import ROOT, Lab, only_one
    from tests.lab.shell import CommandFailed

    try:
        if command == "ssh":
            lab = Lab("demo")
            if not lab.exists:
                raise SystemExit("lab: no demo is running. Start one with './lab demo'.")
            lab.enter()
            return lab.people["lqchen"].terminal(*arguments)
        if command == "demo":
            with only_one("demo"):
                return demo(Lab("demo"))
        for folder in sorted(Path(ROOT).glob("*.lock")):
            with only_one(folder.stem):
                _remove(folder.stem)
        return 0
    except BlockingIOError:
        raise SystemExit("lab: another ./lab is busy with it right now. Wait for it, or end it.") from None
    except (CommandFailed, KernelLacks) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


# Together about as long as all the others.
SECOND_LAB = (
    "test_enemy_root", "test_killed", "test_removal", "test_doctor", "test_storage", "test_ports", "test_console",
    "test_privileges", "test_refused_registrations", "test_registration",
)  # fmt: skip
BENCHES = ("sync", "containers", "soak")


def _bench(arguments: list[str]) -> int:
    """`tests/bench/NAME.py` has a function main."""
    from tests.lab.shell import CommandFailed

    if not arguments or arguments[0] not in BENCHES:
        raise SystemExit(f"lab: say './lab bench NAME' ({', '.join(BENCHES)}); with --help it tells its options.")
    try:
        return int(import_module(f"tests.bench.{arguments[0]}").main(arguments[1:]))
    except BlockingIOError:
        raise SystemExit("lab: another './lab bench' runs. Wait for it, or end it.") from None
    except (CommandFailed, TimeoutError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _remove(name: str) -> None:
    """In a process of its own: removing means entering the lab's namespace, and there is no way back."""
    if name == "bench-sync":
        code = "from tests.bench import light, sync; light.remove_all(sync.FOLDER) and print('removed bench-sync')"
    else:
        code = f"from tests.lab.lab import Lab; lab = Lab({name!r}); lab.exists and (lab.remove(), print('removed {name}'))"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def _pytest(*arguments: str, **settings: str) -> int:
    env = {**os.environ, "LAB_IAM_TEST_NETWORKS": LAB_NETWORK, **settings}
    return subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=REPOSITORY, env=env)


def _unit(arguments: list[str]) -> int:
    quick = "not root and not lab and not slow"
    return _pytest("-n", "2", "-m", quick, "--ignore=tests/e2e", "--ignore=tests/browser", *arguments)


def _on_postgresql(*arguments: str) -> int:
    from tests.lab.postgres import cluster

    with cluster() as postgres:
        return _pytest(*arguments, DATABASE_URL=postgres.create("lab"))


def _on_two_labs(folder: Path) -> dict[str, int]:
    """The exit status by part. Which file runs on which lab is fixed, so that nothing depends on which was quicker."""
    files = [path.relative_to(REPOSITORY) for path in sorted((REPOSITORY / "tests/e2e").glob("test_*.py"))]
    parts = {
        "on the first lab": [*(str(path) for path in files if path.stem not in SECOND_LAB), "tests/browser"],
        "on the second lab": [str(path) for path in files if path.stem in SECOND_LAB],
    }
    with ThreadPoolExecutor() as pool:
        running = {
            part: pool.submit(_pytest, f"--junitxml={folder / part}.xml", *words, LAB_IAM_LAB=f"test-{number}")
            for number, (part, words) in enumerate(parts.items(), 1)
        }
        return {part: code.result() for part, code in running.items()}


def _all(arguments: list[str]) -> int:
    """The tests that need no lab, two at a time; then those that need one, on two labs at a time."""
    if arguments:
        return _pytest(*arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = ["-n", "2", "--ignore=tests/e2e", "--ignore=tests/browser"]
        codes = {"without a lab": _pytest(f"--junitxml={folder}/without a lab.xml", *alone)}
        codes["on PostgreSQL"] = _on_postgresql(f"--junitxml={folder}/on PostgreSQL.xml", "-n", "2", *ON_POSTGRESQL)
        codes |= _on_two_labs(folder)
        for part in codes:
            report = folder / f"{part}.xml"
            print(f"{part}: {summary(report) if report.exists() else 'FAILED: pytest did not end by itself'}")
    return max(codes.values(), key=abs)


if __name__ == "__main__":
    os.umask(0o022)
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
