"""Parsers of settings. The text of a ValueError continues a sentence that begins with the setting's name."""

import ipaddress
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Range(NamedTuple):
    first: int
    last: int

    def contains(self, first: int, count: int = 1) -> bool:
        return self.first <= first and first + count - 1 <= self.last


class Mount(NamedTuple):
    source: str
    target: str
    read_only: bool


def matching(pattern: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError("is not valid")
        return text

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be {' or '.join(choices)}")
        return text

    return parse


def number(first: int, last: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not first <= int(text) <= last:
            raise ValueError(f"must be a number from {first} to {last}")
        return int(text)

    return parse


def number_range(lowest: int, highest: int) -> Callable[[str], Range]:
    def parse(text: str) -> Range:
        match = re.fullmatch(r"([0-9]{1,10})-([0-9]{1,10})", text, re.ASCII)
        if match is None:
            raise ValueError("is not a range such as 22000-29999")
        first, last = int(match[1]), int(match[2])
        if not lowest <= first <= last <= highest:
            raise ValueError(f"must be between {lowest} and {highest}")
        return Range(first, last)

    return parse


def url(text: str) -> str:
    return matching(r"https?://[A-Za-z0-9._~:\[\]-]+(/[A-Za-z0-9._~/-]*)?")(text).rstrip("/")


def address(text: str) -> str:
    with suppress(ValueError):
        return str(ipaddress.IPv4Address(text))
    raise ValueError("is not an IPv4 address")


def optional_address(text: str) -> str:
    """Of either family."""
    with suppress(ValueError):
        return str(ipaddress.ip_address(text)) if text else ""
    raise ValueError("is not an IP address")


def network(text: str) -> ipaddress.IPv4Network:
    with suppress(ValueError):
        found = ipaddress.IPv4Network(text)
        if 8 <= found.prefixlen <= 28:
            return found
    raise ValueError("must be an IPv4 network between /8 and /28, such as 10.0.3.0/24")


def path(text: str) -> Path:
    found = Path(text)
    if not found.is_absolute() or ".." in found.parts or any(ch.isspace() or not ch.isprintable() for ch in text):
        raise ValueError(f"has {text!r} where an absolute path without spaces belongs")
    return found


def optional_path(text: str) -> Path | None:
    return path(text) if text else None


def paths(text: str) -> tuple[Path, ...]:
    return tuple(map(path, text.split()))


def mounts(text: str) -> tuple[Mount, ...]:
    """One `SOURCE:TARGET` or `SOURCE:TARGET:ro` per line."""
    return tuple(_mount(line.strip()) for line in text.splitlines() if line.strip())


def _mount(line: str) -> Mount:
    source, _, rest = line.partition(":")
    target, _, option = rest.partition(":")
    if option not in ("", "ro", "rw"):
        raise ValueError(f"has {line!r} where SOURCE:TARGET or SOURCE:TARGET:ro belongs")
    return Mount(str(path(source)), str(path(target)), option == "ro")


def groups(text: str) -> tuple[str, ...]:
    return tuple(map(matching(r"[a-z_][a-z0-9_-]{0,31}"), text.replace(",", " ").split()))
