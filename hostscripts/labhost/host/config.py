"""host.conf: this server's configuration, an INI file of root's, and the paths that labhost uses."""

import configparser
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

from labhost.errors import LabhostError
from labhost.host import setting_types as types
from labhost.host import state_disk
from labhost.host.setting_types import Mount, Range
from labhost.system import files, log

SUBUID_COUNT = 65536
LAST_ID = 2**32 - 2  # 2^32-1 means "no id" to the kernel


class Setting(NamedTuple):
    """A key of host.conf. Without a default it is required."""

    parse: Callable[[str], Any]
    default: str | None = None


# Named tuples: set-keys waits for this module, and each dataclass would take seven times as long to make.


class Portal(NamedTuple):
    url: Annotated[str, Setting(types.url)]
    token: Annotated[str, Setting(types.matching(r"[A-Za-z0-9._~+/=-]{16,512}"))]
    ssh_address: Annotated[str, Setting(types.optional_address, "")]  # from which it connects; set-up tells sshd

    def __repr__(self) -> str:
        return f"Portal({self.url!r})"  # without the token, which must not reach a traceback


class Server(NamedTuple):
    name: Annotated[str, Setting(types.matching(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"))]
    address: Annotated[str, Setting(types.address)]
    ssh_port: Annotated[int, Setting(types.number(1, 65535), "22")]  # of the server's own sshd
    ports: Annotated[Range, Setting(types.number_range(1024, 65535), "22000-29999")]
    subuids: Annotated[Range, Setting(types.number_range(SUBUID_COUNT, LAST_ID), "1000000000-2147483647")]
    # Below the kernel's own outgoing ports (32768 and up): no connection of the server can occupy one.
    forwards: Annotated[Range, Setting(types.number_range(1024, 65535), "30000-32767")]
    forwards_each: Annotated[int, Setting(types.number(0, 100), "5")]


class Container(NamedTuple):
    template: Annotated[Path, Setting(types.path, "/var/lib/lab-iam/template.tar.zst")]
    bridge: Annotated[str, Setting(types.matching(r"[A-Za-z0-9_.-]{1,15}"), "lxcbr0")]
    network: Annotated[IPv4Network, Setting(types.network, "10.0.3.0/24")]
    groups: Annotated[tuple[str, ...], Setting(types.groups, "sudo")]
    mounts: Annotated[tuple[Mount, ...], Setting(types.mounts, "")]
    storage: Annotated[str, Setting(types.one_of("dir", "overlay"), "dir")]
    quota: Annotated[str, Setting(types.one_of("auto", "none", "image"), "auto")]
    apparmor: Annotated[str, Setting(types.matching(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62})?"), "")]

    @property
    def gateway(self) -> str:
        """The address of each container's bridge, and of lxc-net's: the first of the network."""
        return str(self.network.network_address + 1)


class Snapshots(NamedTuple):
    folder: Annotated[Path | None, Setting(types.optional_path, "")]
    keep: Annotated[int, Setting(types.number(1, 999), "5")]


class Driver(NamedTuple):
    mode: Annotated[str, Setting(types.one_of("install", "bind"), "install")]
    installers: Annotated[Path, Setting(types.path, "/public/nvidia")]
    libraries: Annotated[tuple[Path, ...], Setting(types.paths, "")]
    devices: Annotated[Path, Setting(types.path, "/dev")]
    seconds: Annotated[int, Setting(types.number(0, 840), "240")]


class Config(NamedTuple):
    """One object per section of host.conf."""

    portal: Portal
    server: Server
    container: Container
    snapshots: Snapshots
    driver: Driver


SECTIONS: Mapping[str, type[Any]] = get_type_hints(Config)
SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    section: {name: hint.__metadata__[0] for name, hint in get_type_hints(kind, include_extras=True).items()}
    for section, kind in SECTIONS.items()
}
DEFAULTS = {f"{section}.{key}": item.default for section, items in SETTINGS.items() for key, item in items.items()}


class Paths(NamedTuple):
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
    network: Path = Path("/proc/net")
    sysctls: Path = Path("/proc/sys/net")
    lxc_share: Path = Path("/usr/share/lxc/config")
    login_shell: Path = Path("/public/login.bash")


class Host(NamedTuple):
    """What every command needs: the configuration and the paths."""

    config: Config
    paths: Paths = Paths()
    unknown_settings: tuple[str, ...] = ()  # names in host.conf that this version ignores


def load(paths: Paths | None = None) -> Host:
    """LabhostError if host.conf is missing or wrong."""
    paths = paths or Paths()
    text = files.read_text(paths.config)
    if text is None:
        message = f"{paths.config} is missing: run setup-gpu-server.bash on this server"
        raise LabhostError(message, reason="host_config_missing")
    state_disk.ensure_mounted(paths.state)
    values = read_values(text)
    host = Host(parse(values), paths, unknown_settings(values))
    if host.unknown_settings:
        names = ", ".join(host.unknown_settings)
        with suppress(OSError):  # logged once, until they are others
            if files.write_atomic(paths.state / "unknown-settings", names + "\n", mode=0o600):
                log.write(f"host.conf: unknown settings are ignored: {names}", warning=True)
    return host


def read_values(text: str) -> dict[str, str]:
    """`section.key` -> text, of an INI file; LabhostError if it is not one."""
    parser = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",), comment_prefixes=("#", ";"))
    try:
        parser.read_string(text)
    except configparser.Error as error:
        # The error's own text quotes the line, which may contain the token.
        errors = getattr(error, "errors", None)
        line = str(errors[0][0] if errors else getattr(error, "lineno", "?"))
        message = f"host.conf cannot be read: line {line} is a duplicate or not `key = value`"
        raise LabhostError(message, reason="host_config_unreadable", line=line) from None
    return {f"{section}.{key}": value for section in parser.sections() for key, value in parser.items(section)}


def parse(values: Mapping[str, str]) -> Config:
    """Config from `section.key` texts; LabhostError names the first wrong one. Unknown ones are ignored."""
    return Config(**{section: _parse_section(section, values) for section in SECTIONS})


def _parse_section(section: str, values: Mapping[str, str]) -> Any:
    parsed = {}
    for key, setting in SETTINGS[section].items():
        name = f"{section}.{key}"
        text = values.get(name, setting.default)
        try:
            if text is None:
                raise ValueError("is missing")
            parsed[key] = setting.parse(text)
        except ValueError as error:
            message = f"host.conf: [{section}] {key} {error}"
            raise LabhostError(message, reason="host_config_invalid", setting=name, problem=str(error)) from None
    return SECTIONS[section](**parsed)


def unknown_settings(values: Mapping[str, str]) -> tuple[str, ...]:
    """Names that this version does not know, without their values. A long or strange name may be a token itself."""
    shown = re.compile(r"[a-z_]{1,15}\.[a-z_]{1,15}")
    unknown = values.keys() - DEFAULTS.keys()
    return tuple(sorted({name if shown.fullmatch(name) else "a hidden name" for name in unknown}))


def render(values: Mapping[str, str]) -> str:
    """host.conf with these values, in a fixed order. What is empty by default is left out, what is unknown stays."""
    lines = ["# Written by setup-gpu-server.bash; run it again to change a value."]
    names = [*DEFAULTS, *sorted(values.keys() - DEFAULTS.keys())]
    for section in dict.fromkeys(name.partition(".")[0] for name in names):
        lines.append(f"\n[{section}]")
        for name in names:
            value = values.get(name, DEFAULTS.get(name))
            if name.startswith(f"{section}.") and value is not None and (value or DEFAULTS.get(name) != ""):
                lines.append(f"{name.partition('.')[2]} = " + "\n    ".join(value.strip().splitlines()))
    return "\n".join(lines) + "\n"
