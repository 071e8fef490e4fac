"""host.conf: this server's configuration, an INI file of root's."""

import configparser
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from labhost.errors import LabhostError
from labhost.system.files import read_text

SUBUID_COUNT = 65536
LAST_ID = 2**32 - 2  # 2^32-1 means "no id" to the kernel
SERVER_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
GROUP_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
URL = re.compile(r"https?://[A-Za-z0-9._~:\[\]-]+(/[A-Za-z0-9._~/-]*)?", re.ASCII)
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}", re.ASCII)
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)

# Every key that host.conf may hold, with its default; None means that it must be given.
KEYS: Mapping[str, Mapping[str, str | None]] = {
    "portal": {"url": None, "token": None},
    "server": {
        "name": None,
        "address": None,
        "ports": "22000-29999",
        "subuids": "1000000000-2147483647",
        # Below the kernel's own outgoing ports (32768 and up), so that no connection of the server's has one of them.
        "forwards": "30000-32767",
        "forwards_each": "5",
    },
    "container": {
        "template": "/var/lib/lab-iam/template.tar.zst",
        "bridge": "lxcbr0",
        "network": "10.0.3.0/24",
        "groups": "sudo",
        "mounts": "",
        "storage": "dir",
        "apparmor": "",
    },
    "snapshots": {"folder": "", "keep": "5"},
    "driver": {
        "mode": "install",
        "installers": "/public/nvidia",
        "libraries": "",
        "devices": "/dev",
        "seconds": "240",
    },
}


@dataclass(frozen=True)
class Range:
    first: int
    last: int

    def holds(self, first: int, count: int = 1) -> bool:
        return self.first <= first and first + count - 1 <= self.last


@dataclass(frozen=True)
class Mount:
    source: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class Portal:
    url: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class Server:
    name: str
    address: str
    ports: Range
    subuids: Range
    forwards: Range
    forwards_each: int


@dataclass(frozen=True)
class Container:
    template: Path
    bridge: str
    network: ipaddress.IPv4Network
    groups: tuple[str, ...]
    mounts: tuple[Mount, ...]
    storage: str
    apparmor: str

    @property
    def gateway(self) -> str:
        """The bridge's own address: the first of the network, as lxc-net gives it."""
        return str(self.network.network_address + 1)


@dataclass(frozen=True)
class Snapshots:
    folder: Path | None
    keep: int


@dataclass(frozen=True)
class Driver:
    mode: str
    installers: Path
    libraries: tuple[Path, ...]
    devices: Path
    seconds: int


@dataclass(frozen=True)
class Config:
    """One object a section of host.conf."""

    portal: Portal
    server: Server
    container: Container
    snapshots: Snapshots
    driver: Driver


@dataclass(frozen=True)
class Paths:
    config: Path = Path("/etc/lab-iam/host.conf")
    state: Path = Path("/var/lib/lab-iam")
    home: Path = Path("/home")
    subuid: Path = Path("/etc/subuid")
    subgid: Path = Path("/etc/subgid")
    usernet: Path = Path("/etc/lxc/lxc-usernet")
    leases: Path = Path("/var/lib/misc")
    run_user: Path = Path("/run/user")
    dhcp_hosts: Path = Path("/etc/lxc/lab-iam-dhcp-hosts")
    cgroups: Path = Path("/sys/fs/cgroup")
    interfaces: Path = Path("/sys/class/net")
    bridge_filter: Path = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    lxc_share: Path = Path("/usr/share/lxc/config")
    login_shell: Path = Path("/public/login.bash")


@dataclass(frozen=True)
class Host:
    """What every verb needs to know: the configuration and where things lie."""

    config: Config
    paths: Paths = Paths()


def load(paths: Paths | None = None) -> Host:
    paths = paths or Paths()
    text = read_text(paths.config)
    if text is None:
        raise LabhostError(f"{paths.config} is missing: run setup-gpu-server.bash on this server")
    return Host(parse(read_values(text)), paths)


def read_values(text: str) -> dict[str, str]:
    """`section.key` -> text, of an INI file; unknown sections and keys are errors."""
    parser = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",), comment_prefixes=("#", ";"))
    try:
        parser.read_string(text)
    except configparser.Error as error:
        # The error's own words quote the line, which may hold the token.
        errors = getattr(error, "errors", None)
        line = errors[0][0] if errors else getattr(error, "lineno", "?")
        raise LabhostError(f"host.conf cannot be read: line {line} is a duplicate or not `key = value`") from None
    found: dict[str, str] = {}
    for section in parser.sections():
        for key, value in parser.items(section):
            if key not in KEYS.get(section, {}):
                shown = key if re.fullmatch(r"[a-z_]{1,15}", key) else "a key"  # or a token without its `token =`
                raise LabhostError(f"host.conf: [{section}] {shown} is unknown")
            found[f"{section}.{key}"] = value
    return found


def render(values: Mapping[str, str]) -> str:
    """host.conf with these values, in a fixed order; keys at their default stay out."""
    lines = ["# Written by setup-gpu-server.bash; run it again to change a value."]
    for section, keys in KEYS.items():
        lines.append(f"\n[{section}]")
        for key, default in keys.items():
            value = values.get(f"{section}.{key}", default)
            if value is not None and (value != default or default != ""):
                lines.append(f"{key} = " + "\n    ".join(value.strip().splitlines()))
    return "\n".join(lines) + "\n"


def parse(values: Mapping[str, str]) -> Config:
    """Config from `section.key` texts, or LabhostError that names the first bad key."""

    def text(name: str, pattern: re.Pattern[str] | None = None) -> str:
        section, key = name.split(".")
        value = values.get(name, KEYS[section][key])
        if value is None:
            raise LabhostError(f"host.conf: [{section}] {key} is missing")
        if pattern is not None and not pattern.fullmatch(value):
            raise LabhostError(f"host.conf: [{section}] {key} is not valid")
        return value

    def folder(name: str) -> Path:
        return _path(name, text(name))

    storage, driver = text("container.storage"), text("driver.mode")
    if storage not in ("dir", "overlay"):
        raise LabhostError("host.conf: [container] storage must be dir or overlay")
    if driver not in ("install", "bind"):
        raise LabhostError("host.conf: [driver] mode must be install or bind")
    groups = tuple(text("container.groups").replace(",", " ").split())
    if any(not GROUP_NAME.fullmatch(group) for group in groups):
        raise LabhostError("host.conf: [container] groups is not valid")
    apparmor = text("container.apparmor")
    if apparmor and not WORD.fullmatch(apparmor):
        raise LabhostError("host.conf: [container] apparmor is not valid")
    return Config(
        Portal(url=text("portal.url", URL).rstrip("/"), token=text("portal.token", TOKEN)),
        Server(
            name=text("server.name", SERVER_NAME),
            address=_address(text("server.address")),
            ports=_range("ports", text("server.ports"), 1024, 65535),
            subuids=_range("subuids", text("server.subuids"), SUBUID_COUNT, LAST_ID),
            forwards=_range("forwards", text("server.forwards"), 1024, 65535),
            forwards_each=_count("server.forwards_each", text("server.forwards_each"), 100),
        ),
        Container(
            template=folder("container.template"),
            bridge=text("container.bridge", re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)),
            network=_network(text("container.network")),
            groups=groups,
            mounts=tuple(_mount(line.strip()) for line in text("container.mounts").splitlines() if line.strip()),
            storage=storage,
            apparmor=apparmor,
        ),
        Snapshots(
            folder=folder("snapshots.folder") if text("snapshots.folder") else None,
            keep=int(text("snapshots.keep", re.compile(r"[1-9][0-9]{0,2}", re.ASCII))),
        ),
        Driver(
            mode=driver,
            installers=folder("driver.installers"),
            libraries=tuple(_path("driver.libraries", word) for word in text("driver.libraries").split()),
            devices=folder("driver.devices"),
            seconds=_count("driver.seconds", text("driver.seconds"), 840),
        ),
    )


def _path(name: str, value: str) -> Path:
    path = Path(value)
    if not path.is_absolute() or ".." in path.parts or any(ch.isspace() or not ch.isprintable() for ch in value):
        raise LabhostError(f"host.conf: {name}: {value!r} is not an absolute path without spaces")
    return path


def _address(value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError as error:
        raise LabhostError("host.conf: [server] address is not an IPv4 address") from error


def _network(value: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError as error:
        raise LabhostError("host.conf: [container] network is not an IPv4 network such as 10.0.3.0/24") from error
    if not 8 <= network.prefixlen <= 28:
        raise LabhostError("host.conf: [container] network must be between /8 and /28")
    return network


def _range(key: str, value: str, least: int, most: int) -> Range:
    match = re.fullmatch(r"([0-9]{1,10})-([0-9]{1,10})", value, re.ASCII)
    if match is None:
        raise LabhostError(f"host.conf: [server] {key} is not a range such as 22000-29999")
    first, last = int(match[1]), int(match[2])
    if not least <= first <= last <= most:
        raise LabhostError(f"host.conf: [server] {key} must lie between {least} and {most}")
    return Range(first, last)


def _count(name: str, value: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", value, re.ASCII) or int(value) > most:
        raise LabhostError(f"host.conf: {name} must be a number from 0 to {most}")
    return int(value)


def _mount(line: str) -> Mount:
    source, _, rest = line.partition(":")
    target, _, option = rest.partition(":")
    if option not in ("", "ro", "rw"):
        raise LabhostError(f"host.conf: [container] mounts: {line!r} is not SOURCE:TARGET or SOURCE:TARGET:ro")
    return Mount(str(_path("mounts", source)), str(_path("mounts", target)), option == "ro")
