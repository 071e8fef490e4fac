"""Renders the LXC configuration of one container, see lxc.container.conf(5); root writes it."""

import os
from collections.abc import Iterable

from labhost import lxc
from labhost.host import user_state
from labhost.host.config import SUBUID_COUNT, Host, Mount
from labhost.host.user_state import User
from labhost.network import addresses


def render(host: Host, user: User, extra: Iterable[str]) -> str:
    """`extra` are more lines: limits, and mounts of this start."""
    config = host.config
    lines = [
        *_base(host, user),
        "lxc.net.0.type = veth",
        f"lxc.net.0.link = {config.container.bridge}",
        "lxc.net.0.flags = up",
        "lxc.net.0.name = eth0",
        f"lxc.net.0.hwaddr = {addresses.mac_address(user.address)}",
        f"lxc.net.0.ipv4.address = {user.address}/{config.container.network.prefixlen}",
        f"lxc.net.0.ipv4.gateway = {config.container.gateway}",
        *(_lab_mount(mount) for mount in config.container.mounts),
    ]
    return "\n".join([*lines, *extra]) + "\n"


def render_provisioning(host: Host, user: User) -> str:
    """For a run without boot: no network, no mounts of the lab, and without the half second of lxcfs's reboot hook."""
    return "\n".join([*_base(host, user), "lxc.net.0.type = empty", "lxc.hook.post-stop ="]) + "\n"


def _base(host: Host, user: User) -> list[str]:
    rootfs = user_state.home_folder(host, user.name) / ".local/share/lxc" / user.name / "rootfs"
    lines = [
        "# Written by labhost; changes are lost at the next start.",
        f"lxc.include = {host.paths.lxc_share}/common.conf",
        f"lxc.include = {host.paths.lxc_share}/userns.conf",
        f"lxc.arch = {os.uname().machine}",
        f"lxc.idmap = u 0 {user.subuid} {SUBUID_COUNT}",
        f"lxc.idmap = g 0 {user.subuid} {SUBUID_COUNT}",
        f"lxc.rootfs.path = dir:{rootfs}",
        f"lxc.uts.name = {host.config.server.name}",
        "lxc.tty.max = 0",
        "lxc.console.path = none",
    ]
    return (
        [*lines, f"lxc.apparmor.profile = {host.config.container.apparmor}"]
        if host.config.container.apparmor
        else lines
    )


def _lab_mount(mount: Mount) -> str:
    return lxc.mount_entry(mount.source, mount.target, read_only=mount.read_only)
