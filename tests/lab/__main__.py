"""The commands of `./lab` once Python is installed: `python -m tests.lab COMMAND`."""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path

from tests.lab.images import REPOSITORY
from tests.lab.rerun import Part, run_part, verdict

# Besides loopback, tests may reach these addresses only: the lab's network, in its own namespace.
LAB_NETWORK = "172.16.2.0/24"

# These use no database, only files, sockets and text: on PostgreSQL they would do the same again.
WITHOUT_DATABASE = ("host", "host_keys", "messages", "portal_key", "ssh_config")
# Tests that write from several threads or processes at once, or pass foreign text to the database, also run on
# PostgreSQL, as do all tests of pushes: a new file in tests/servers runs on both by default.
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
        case "pictures":
            return _pictures()
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
        raise SystemExit("lab: another ./lab command is running. Wait for it or end it.") from None
    except (CommandFailed, KernelLacks) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


# These take about as long as all the others together.
SECOND_LAB = (
    "test_enemy_root", "test_killed", "test_removal", "test_doctor", "test_storage", "test_ports", "test_console",
    "test_privileges", "test_refused_registrations", "test_registration",
)  # fmt: skip
WITHOUT_LAB = ("--ignore=tests/e2e", "--ignore=tests/browser")
NO_TESTS = 5  # pytest's exit status when nothing was selected
BENCHES = ("sync", "containers", "soak")


def _bench(arguments: list[str]) -> int:
    """Run the function `main` of tests/bench/NAME.py."""
    from tests.lab.shell import CommandFailed

    if not arguments or arguments[0] not in BENCHES:
        raise SystemExit(f"lab: usage: './lab bench NAME' ({', '.join(BENCHES)}); --help lists the options of a bench.")
    try:
        return int(import_module(f"tests.bench.{arguments[0]}").main(arguments[1:]))
    except BlockingIOError:
        raise SystemExit("lab: another './lab bench' is running. Wait for it or end it.") from None
    except (CommandFailed, TimeoutError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _remove(name: str) -> None:
    """In a separate process: removing a lab means entering its namespace, which cannot be left again."""
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
    return _pytest("-n", "2", "-m", quick, *WITHOUT_LAB, *arguments)


def _long(arguments: list[str]) -> int:
    """The long forms of tests, which the normal run leaves out."""
    code = _pytest("-m", "long", "-o", "faulthandler_timeout=10800", *arguments)
    if code == NO_TESTS and not arguments:
        print("no long tests yet")
        return 0
    return code


def _on_postgresql(*arguments: str) -> int:
    from tests.lab.postgres import cluster

    with cluster() as postgres:
        return _pytest(*arguments, DATABASE_URL=postgres.create("lab"))


def _on_two_labs(folder: Path) -> list[Part]:
    """Which file runs on which lab is fixed, so that nothing depends on which was quicker."""
    files = [path.relative_to(REPOSITORY) for path in sorted((REPOSITORY / "tests/e2e").glob("test_*.py"))]
    parts = {
        "on the first lab": [*(str(path) for path in files if path.stem not in SECOND_LAB), "tests/browser"],
        "on the second lab": [str(path) for path in files if path.stem in SECOND_LAB],
    }
    with ThreadPoolExecutor() as pool:
        running = [
            pool.submit(run_part, name, partial(_pytest, LAB_IAM_LAB=f"test-{number}"), folder, *arguments)
            for number, (name, arguments) in enumerate(parts.items(), 1)
        ]
        return [part.result() for part in running]


def _pictures() -> int:
    from tests.lab.pictures import publish

    with tempfile.TemporaryDirectory() as folder:
        code = _pytest("-q", "tests/browser/test_pictures.py", PICTURES_FOLDER=folder, LAB_IAM_LAB="pictures")
        return code or publish(Path(folder))


def _all(arguments: list[str]) -> int:
    """The tests that need no lab, two at a time; then those that need one, on two labs at a time."""
    if arguments[:1] == ["long"]:
        return _long(arguments[1:])
    if arguments:
        return _pytest(*arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        code, lines = verdict(
            [
                run_part("without a lab", _pytest, folder, "-n", "2", *WITHOUT_LAB),
                run_part("on PostgreSQL", _on_postgresql, folder, "-n", "2", *ON_POSTGRESQL),
                *_on_two_labs(folder),
            ]
        )
    print(*lines, sep="\n")
    return code


if __name__ == "__main__":
    os.umask(0o022)
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
