"""The portal's plain-text pages, read with curl as user `iam` and judged as if the portal were hostile."""

import pwd
import re
from dataclasses import dataclass

from . import sshconfig
from .config import SUBUID_COUNT, Config
from .errors import LabhostError, PortalUnavailable
from .keys import BadKey, PublicKey, check_lines
from .names import check_name
from .run import Account, run

SECONDS = 3
PAGE_MOST = 1 << 20
SUBUIDS_END = 2**32 - 65536  # the last 65536 ids stay free


@dataclass(frozen=True)
class Person:
    """What the portal says about one person."""

    port: int
    subuid: int
    keys: tuple[PublicKey, ...]
    ssh_config: str


def fetch_person(config: Config, name: str) -> Person:
    """Everything that a registration needs, or PortalUnavailable."""
    page = f"/user/{check_name(name)}"
    port = fetch_port(config, name)
    subuid = parse_subuid(config, _get(config, f"{page}/subuid"))
    try:
        keys = check_lines(_get(config, f"{page}/.ssh/authorized_keys"))
    except BadKey as error:
        raise PortalUnavailable(f"the portal's keys of {name} are not acceptable: {error}") from error
    return Person(port, subuid, keys, sshconfig.check(_get(config, f"{page}/.ssh/config")))


def fetch_port(config: Config, name: str) -> int:
    return parse_port(config, _get(config, f"/user/{check_name(name)}/port"))


def parse_port(config: Config, text: str) -> int:
    port = _number(text, "port")
    if not config.ports.holds(port):
        raise PortalUnavailable(
            f"the portal gave port {port}, which is outside {config.ports.first}-{config.ports.last}"
        )
    return port


def parse_subuid(config: Config, text: str) -> int:
    start = _number(text, "subuid")
    if not config.subuids.holds(start, SUBUID_COUNT) or start + SUBUID_COUNT > SUBUIDS_END:
        raise PortalUnavailable(
            f"the portal gave the subordinate ids from {start}, which are outside this server's range"
        )
    return start


def _number(text: str, what: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,9})\n?", text, re.ASCII)
    if match is None:
        raise PortalUnavailable(f"the portal's answer for {what} is not a number; ask the lab's staff")
    return int(match[1])


def tell_seen(config: Config) -> None:
    """This server is back: the portal need not wait until its next try. PortalUnavailable."""
    _ask(config, f"/servers/{config.name}/seen", b"204", "--request", "POST")


def _get(config: Config, page: str) -> str:
    body = _ask(config, page, b"200")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PortalUnavailable(f"the portal's answer to {page} is not text") from error


def _ask(config: Config, page: str, wanted: bytes, *options: str) -> bytes:
    """What the portal sends with the status `wanted`; PortalUnavailable."""
    words = ["/usr/bin/curl", "--disable", "--silent", "--show-error", "--globoff", "--proto", "=http,https"]
    words += ["--noproxy", "*", "--max-time", str(SECONDS), "--max-filesize", str(PAGE_MOST), *options]
    words += ["--header", "@-", "--write-out", "\n%{http_code}", config.url + page]
    header = f"Authorization: Bearer {config.token}\n".encode()
    result = run(words, timeout=SECONDS + 2, account=_reader(), stdin=header, most=PAGE_MOST + 16)
    if not result.ok or result.cut:
        raise PortalUnavailable(f"the portal does not answer ({result.complaint})")
    body, _, status = result.out.rpartition(b"\n")
    if status != wanted:
        raise PortalUnavailable(f"the portal answered {status.decode('ascii', 'replace')} to {page}")
    return body


def _reader() -> Account:
    try:
        entry = pwd.getpwnam("iam")
    except KeyError as error:
        raise LabhostError("the account iam is missing: run setup-gpu-server.bash again") from error
    return Account("iam", entry.pw_uid, entry.pw_gid, entry.pw_dir)
