"""The portal's plain-text pages, read with curl as user `iam` and judged as if the portal were hostile."""

import os
import pwd
import re
from collections.abc import Sequence
from typing import NamedTuple

from labhost.errors import LabhostError, PortalUnavailable
from labhost.host import SUBUID_COUNT, Config, limits
from labhost.keys.public_keys import Keys, judge_lines
from labhost.portal import ssh_config
from labhost.system import Account, check_name, run

SECONDS = 3
PAGE_MOST = 1 << 20
SUBUIDS_END = 2**32 - 65536  # the last 65536 ids stay free


class Person(NamedTuple):
    """A person as the portal describes them."""

    port: int
    subuid: int
    keys: Keys
    ssh_config: str
    limits: dict[str, str]


def fetch_person(config: Config, name: str) -> Person:
    """Everything that a registration needs, or PortalUnavailable."""
    page = f"/user/{check_name(name)}"
    leaves = ("port", "subuid", ".ssh/authorized_keys", ".ssh/config", f"limits?server={config.server.name}")
    port, subuid, key_lines, config_text, limits_text = _get(config, *(f"{page}/{leaf}" for leaf in leaves))
    keys, _ = judge_lines(key_lines)  # a refused key is reported by the next push
    checked = ssh_config.check(config_text)
    return Person(parse_port(config, port), parse_subuid(config, subuid), keys, checked, limits.parse(limits_text))


def fetch_values(config: Config, name: str) -> tuple[int, dict[str, str]]:
    """What a start needs: the port, and the limits (see limits.py) of the person's container on this server."""
    page = f"/user/{check_name(name)}"
    port, text = _get(config, f"{page}/port", f"{page}/limits?server={config.server.name}")
    return parse_port(config, port), limits.parse(text)


def parse_port(config: Config, text: str) -> int:
    port, ports = _number(text, "port"), config.server.ports
    if not ports.contains(port):
        text = f"the portal assigned port {port}, which is outside {ports.first}-{ports.last}"
        raise PortalUnavailable(text, reason="portal_port", port=port, first=ports.first, last=ports.last)
    return port


def parse_subuid(config: Config, text: str) -> int:
    start = _number(text, "subuid")
    if not config.server.subuids.contains(start, SUBUID_COUNT) or start + SUBUID_COUNT > SUBUIDS_END:
        text = f"the portal assigned the subordinate ids from {start}, which are outside this server's range"
        raise PortalUnavailable(text, reason="portal_subuid", start=start)
    return start


def _number(text: str, what: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,9})\n?", text, re.ASCII)
    if match is None:
        text = f"the portal's answer for {what} is not a number; ask the lab's staff"
        raise PortalUnavailable(text, reason="portal_number", what=what)
    return int(match[1])


def announce_online(config: Config, *, revoked: bool = False) -> None:
    """Tell the portal that this server is back, so that it does not wait for its next retry. PortalUnavailable.

    With `revoked` the portal asks for the keys that were revoked by hand.
    """
    page = f"/servers/{config.server.name}/online" + ("?revoked=1" if revoked else "")
    split(*_ask(config, page, options=("--request", "POST")), [page], expected=b"204")


def _get(config: Config, *pages: str) -> list[str]:
    """The text of each page; PortalUnavailable."""
    return split(*_ask(config, *pages), pages)


def _ask(config: Config, *pages: str, options: Sequence[str] = ()) -> tuple[bytes, str]:
    """The output of curl, all over one connection until the first failure, and the mark that ends each page."""
    mark = os.urandom(16).hex()  # random, so that no page can contain it
    words = ["/usr/bin/curl", "--disable", "--silent", "--show-error", "--globoff", "--proto", "=http,https"]
    words += ["--noproxy", "*", "--max-time", str(SECONDS), "--max-filesize", str(PAGE_MOST), "--fail-early", *options]
    words += ["--header", "@-", "--write-out", f"\n{mark} %{{http_code}}\n"]
    words += [config.portal.url + page for page in pages]
    header = f"Authorization: Bearer {config.portal.token}\n".encode()
    most = len(pages) * (PAGE_MOST + 64)
    result = run(words, timeout=len(pages) * SECONDS + 2, account=_reader(), stdin=header, max_output=most)
    if not result.ok or result.truncated:
        raise _no_answer(result.error_line)
    return result.out, mark


def _no_answer(detail: str) -> PortalUnavailable:
    return PortalUnavailable(f"the portal does not answer ({detail})", reason="portal_no_answer", detail=detail)


def split(out: bytes, mark: str, pages: Sequence[str], *, expected: bytes = b"200") -> list[str]:
    """The texts of pages, each of which ends with a line with the mark and the HTTP status `expected`."""
    parts = re.split(rb"\n%s ([0-9]{3})\n" % mark.encode(), out)
    if len(parts) != 2 * len(pages) + 1:
        raise _no_answer("its pages are cut")
    return [_text(*found, expected) for found in zip(pages, parts[0::2], parts[1::2], strict=False)]


def _text(page: str, body: bytes, status: bytes, expected: bytes) -> str:
    if status != expected:
        text = f"the portal answered {status.decode()} to {page}"
        raise PortalUnavailable(text, reason="portal_status", status=int(status), page=page)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        text = f"the portal's answer to {page} is not text"
        raise PortalUnavailable(text, reason="portal_no_text", page=page) from error


def _reader() -> Account:
    try:
        entry = pwd.getpwnam("iam")
    except KeyError as error:
        text = "the account iam is missing; run setup-gpu-server.bash again"
        raise LabhostError(text, reason="iam_account_missing") from error
    return Account("iam", entry.pw_uid, entry.pw_gid, entry.pw_dir)
