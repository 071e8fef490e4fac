"""Install the host programs on a server over SSH: runs `setup-gpu-server.bash` as root with the portal's values."""

import contextlib
import hashlib
import io
import ipaddress
import re
import secrets
import shlex
import socket
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from django.conf import settings
from django.db import transaction

from accounts.services import audit
from servers import protocol
from servers.models import Server, ServerState
from servers.services import remote
from servers.services.push import runner
from servers.ssh import portal_key
from servers.ssh.dial import RemoteError
from servers.ssh.host import Host, Login, Result, bounded

SETUP_SECONDS = 1800
STEP_SECONDS = 60
UPLOAD_SECONDS = 3600
CHUNK = 1024 * 1024
FOLDER = re.compile(r"/var/tmp/lab-iam\.[A-Za-z0-9]{10}")  # noqa: S108 - mktemp makes it, on the server
SUFFIXES = (".tar.zst", ".tar.gz", ".tar.xz", ".tar")
Report = Callable[[str], None]


class DeploymentFailed(Exception):
    """The deployment did not succeed; the text says why."""


@dataclass(frozen=True)
class Plan:
    """How to log in and what to install. `options` go to setup-gpu-server.bash, without their `--`."""

    login: Login
    template: Path | None = None
    address: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def sudo(self) -> bool:
        return self.login.user != "root"


def deploy(*, actor: str, server: Server, plan: Plan, report: Report) -> None:
    """Install or update the host programs, then request a push. Raises DeploymentFailed or RemoteError.

    A new token, with which the server reads the portal, is sent on standard input only. Both count until the end.
    """
    public_key = portal_key.public_line(settings.PORTAL_KEY_FILE)
    address = _address(server, plan)
    if plan.template is not None and not plan.template.name.endswith(SUFFIXES):
        raise DeploymentFailed(f"{plan.template}: the file name must end in {' or '.join(SUFFIXES)}.")
    token = secrets.token_urlsafe(32)
    report(f"Logging in to {server.name} as {plan.login.user}")
    connection = Host(remote.endpoint(server), plan.login, seconds=UPLOAD_SECONDS + SETUP_SECONDS)
    with connection as host, _folder(host, plan) as folder:
        archive = pack(settings.BASE_DIR / "hostscripts")
        report(f"Copying the host programs ({len(archive) // 1024} KiB)")
        _run(host, plan, f"tar -xf - -C {folder} --no-same-owner", [archive])
        _run(host, plan, f"umask 077; cat > {folder}/token", [token.encode() + b"\n"])
        template = _upload_template(host, plan, folder, report)
        command = _setup_command(server, plan, folder, public_key, address, template)
        command += _portal_address(host)
        Server.objects.filter(pk=server.pk).update(next_token_digest=_digest(token))
        report("Running setup-gpu-server.bash")
        _run(host, plan, f"{shlex.join(command)} >&2", seconds=SETUP_SECONDS, report=report)
    _record(actor, server, token)
    report(f"{server.name} is installed. The keys are being pushed.")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@transaction.atomic
def _record(actor: str, server: Server, token: str) -> None:
    Server.objects.filter(pk=server.pk).update(token_digest=_digest(token), next_token_digest="")
    ServerState.objects.filter(pk=server.pk).update(attempts=0, next_attempt=None)
    audit.record(actor=actor, verb="server.deployed", object=server.name)
    runner.request_push(actor=actor, servers=[server])


def _address(server: Server, plan: Plan) -> str:
    """The server's public IPv4 address, which its port rules need."""
    address = plan.address or server.address
    try:
        return socket.gethostbyname(address)
    except OSError:
        raise DeploymentFailed(f"{address} has no IPv4 address. Set one with --address.") from None


def _portal_address(host: Host) -> list[str]:
    """The option with this machine's address as the server sees it, see sshd(8); none if the server does not say."""
    shown = host.run("echo $SSH_CONNECTION").stdout.decode("ascii", "replace").split() or [""]
    try:
        return ["--portal-address", str(ipaddress.ip_address(shown[0]))]
    except ValueError:
        return []


def _run(
    host: Host,
    plan: Plan,
    command: str,
    stdin: Iterable[bytes] = (),
    *,
    seconds: int = STEP_SECONDS,
    report: Report | None = None,
) -> Result:
    result = host.run(bounded(command, seconds=seconds, sudo=plan.sudo), stdin, on_line=report)
    if result.status == 0:
        return result
    reason = result.tail.rpartition(" / ")[2] or f"exit status {result.status}"
    if "a password is required" in reason:
        reason = f"{plan.login.user} needs passwordless sudo"
    raise DeploymentFailed(reason)


@contextlib.contextmanager
def _folder(host: Host, plan: Plan) -> Iterator[str]:
    """A new folder on the server that only root can enter, removed at the end."""
    made = _run(host, plan, "umask 077; mktemp -d /var/tmp/lab-iam.XXXXXXXXXX").stdout.decode("ascii", "replace")
    folder = made.strip()
    if FOLDER.fullmatch(folder) is None:
        raise DeploymentFailed("mktemp did not print a folder.")
    try:
        yield folder
    finally:
        with contextlib.suppress(RemoteError, DeploymentFailed):
            _run(host, plan, f"rm -rf -- {folder}")


@cache
def build() -> str:
    """The build of this portal's own host programs, which a server with the same ones reports. Read once."""
    root = settings.BASE_DIR / "hostscripts/labhost"
    return protocol.build_digest({path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.py")})


def pack(root: Path) -> bytes:
    """A tar archive of the host programs, owned by root, without compiled files."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        for path in sorted(root.rglob("*")):
            if "__pycache__" in path.parts or not (path.is_file() or path.is_dir()):
                continue
            entry = archive.gettarinfo(path, str(path.relative_to(root)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            entry.mode = 0o755 if path.is_dir() or entry.mode & 0o100 else 0o644
            with path.open("rb") if path.is_file() else contextlib.nullcontext() as content:
                archive.addfile(entry, content)
    return memory.getvalue()


def _upload_template(host: Host, plan: Plan, folder: str, report: Report) -> str:
    """The path of the copied template on the server; "" if there is none to copy."""
    if plan.template is None:
        return ""
    name = next(suffix for suffix in SUFFIXES if plan.template.name.endswith(suffix))
    target = f"{folder}/template{name}"
    _run(host, plan, f"cat > {target}", _pieces(plan.template, report), seconds=UPLOAD_SECONDS)
    return target


def _pieces(path: Path, report: Report) -> Iterator[bytes]:
    total, sent, reported = path.stat().st_size, 0, -10  # reported at each tenth, and at the end
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK):
            yield piece
            sent += len(piece)
            percent = 100 * sent // max(total, 1)
            if percent >= min(reported + 10, 100):
                reported = percent
                report(f"Copying the template: {percent} % of {total // CHUNK} MiB")


def _setup_command(server: Server, plan: Plan, folder: str, public_key: str, address: str, template: str) -> list[str]:
    values = {
        "portal": settings.PORTAL_URL,
        "name": server.name,
        "address": address,
        "iam-key": public_key,
        "token-file": f"{folder}/token",
        "ports": str(settings.LAB_PORTS),
        "subuids": str(settings.LAB_SUBUIDS),
        **({"template": template} if template else {}),
        **plan.options,
    }
    command = [f"{folder}/setup-gpu-server.bash"]
    for name, value in values.items():
        command += [f"--{name}", value]
    return command
