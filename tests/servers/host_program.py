"""What the test sshd runs for every command: the real labhost in its own folder, or a host that misbehaves.

argv: the farm's folder. One folder in it for each address that was connected to; its file `behaviour` says how.
"""

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def load() -> None:
    """Load labhost with all that it imports."""
    sys.path.insert(0, str(REPOSITORY / "hostscripts"))
    for name in ("labhost.admin.portal_requests", "labhost.keys.set_keys", "labhost.protocol.session"):
        importlib.import_module(name)


def labhost(folder: Path, verb: str) -> int:
    sys.path.insert(0, str(REPOSITORY / "hostscripts"))
    from labhost.admin import portal_requests
    from labhost.host import config
    from labhost.keys import set_keys
    from labhost.protocol import seats, session, verbs

    seats.FILE = folder / "seats"
    values = {
        "portal.url": "http://127.0.0.1",
        "portal.token": "t" * 32,
        "server.name": "gpu17",
        "server.address": folder.name,
    }
    paths = config.Paths(state=folder / "state", home=folder / "home")
    host = config.Host(config.parse(values), paths)
    if verb == "set-keys":
        memory = set_keys.Memory()
        code = session.serve(0, lambda request: set_keys.set_keys(host, request, memory))
        memory.end()
        os._exit(code)
    answers = {
        "status": lambda request: portal_requests.describe(host, request),
        "register": lambda request: register(folder, request["user"]),
        "suspend": lambda request: suspend(folder, request),
        "remove": lambda request: remove(folder, request["user"], request["purge"]),
    }
    return int(verbs.answer_portal(answers[verb]))


def refusal(code: str, reason: str, **params: str) -> dict[str, object]:
    return {"ok": False, "error": {"code": code, "reason": reason, "params": params}}


def register(folder: Path, user: str) -> dict[str, object]:
    """Stands in for the steps of a registration, which need root and a booted host: tests/e2e runs the real ones."""
    if not (folder / "may_register").exists():
        return refusal("refused", "template_missing")
    for number, step in enumerate(["fetch", "account", "clone"], start=1):
        print(f"[{number}/3] {step}\x1b[31m", file=sys.stderr, flush=True)
    (folder / "state/users").mkdir(exist_ok=True)
    state = {"name": user, "account": "created", "uid": 12345, "port": 22001, "address": "10.0.3.160"}
    (folder / f"state/users/{user}.json").write_text(json.dumps(state))
    return {"ok": True, "user": user, "created": True, "port": 22001, "address": "10.0.3.160"}


def take_request() -> None:
    """Read one frame; the input of a session does not end."""
    header = sys.stdin.buffer.readline().split()
    if len(header) == 4:
        sys.stdin.buffer.read(int(header[2]))


def remove(folder: Path, user: str, purge: bool) -> dict[str, object]:
    """Stands in for the steps of a removal, as `register` does."""
    path = folder / f"state/users/{user}.json"
    if not path.exists():
        return refusal("not_registered", "not_registered", name=user)
    if (folder / "may_not_remove").exists():
        return refusal("failed", "disk_full")
    print("[1/1] deleting" if purge else "[1/1] putting aside", file=sys.stderr, flush=True)
    path.unlink()
    return {"ok": True, "user": user, "kept": [] if purge else ["/home/.lab-iam-kept/alice"]}


def suspend(folder: Path, request: dict[str, object]) -> dict[str, object]:
    (folder / "suspended").write_text(json.dumps(request))
    if (folder / "keys_are_live").exists():
        return refusal("busy", "keys_still_live", name="alice")
    print("ending open sessions", file=sys.stderr, flush=True)
    return {"ok": True}


def main() -> int:
    signal.alarm(20)  # as labhost does
    address = os.environ["SSH_CONNECTION"].split()[2]
    folder = Path(sys.argv[1]) / address
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    with (folder / "commands").open("a") as stream:
        stream.write(f"{os.getpid()} {time.time()} {command}\n")
    behaviour = (folder / "behaviour").read_text()
    if behaviour == "shell":
        os.execv("/bin/sh", ["sh", "-c", command])
    if behaviour == "deaf":  # reads nothing, writes nothing
        time.sleep(300)
    if behaviour == "mute":  # reads everything, writes nothing
        take_request()
        time.sleep(300)
    if behaviour == "garbage":
        take_request()
        print("<html>\x1b[2Jnot JSON", flush=True)
        print("sudo: \x1b[31ma password is required", file=sys.stderr)
        return 1
    if behaviour == "flood":
        while True:
            sys.stdout.buffer.write(b"x" * 65536)
    if behaviour == "liar":  # reports success for another revision
        take_request()
        print(json.dumps({"version": 1, "ok": True, "revision": 999, "digest": "0" * 64, "users": {}}))
        return 0
    if behaviour == "fails-all":
        take_request()
        print(json.dumps({"version": 1} | refusal("failed", "disk_full")))
        return 1
    return labhost(folder, command)


if __name__ == "__main__":
    sys.exit(main())
