"""A server in one folder: with its own configuration and paths, without accounts."""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from labhost.host import config
from labhost.host.config import Host, Paths

VALUES = {
    "portal.url": "http://iam.mylab.com",
    "portal.token": "0123456789abcdef",
    "server.name": "gpu17",
    "server.address": "172.16.2.17",
}

SUBUID = 200_000  # of all people in the tests


def frame_of(value: dict[str, Any]) -> bytes:
    """A request as the portal sends it."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return f"lab-iam 1 {len(body)} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def make(folder: Path, **values: str) -> Host:
    """Values as `section__key`; state, homes and the shared files of /etc are in `folder`."""
    (folder / "state").mkdir()
    (folder / "home/register/.ssh").mkdir(parents=True)
    paths = Paths(
        config=folder / "host.conf",
        state=folder / "state",
        home=folder / "home",
        subuid=folder / "subuid",
        subgid=folder / "subgid",
        usernet=folder / "lxc-usernet",
        leases=folder,
        dhcp_hosts=folder / "dhcp-hosts",
        cgroups=folder / "cgroup",
        interfaces=folder / "net",
        network=folder / "proc",
        sysctls=folder / "sysctl",
    )
    return Host(config.parse(VALUES | {key.replace("__", "."): text for key, text in values.items()}), paths)


def signal_child(name: str, number: int) -> None:
    """Sends a signal to the child of this process that runs `name`, as soon as there is one."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(FileNotFoundError, ProcessLookupError):
                head, _, rest = path.read_text().rpartition(")")
                mine = head.endswith(f"({name}") and int(rest.split()[1]) == os.getpid()
                if mine:
                    os.kill(int(path.parent.name), number)
                    return
    raise TimeoutError(name)
