"""Renders the LXC configuration of one container, see lxc.container.conf(5); root writes it."""

import os
from collections.abc import Iterable

from labhost import lxc
from labhost.host import SUBUID_COUNT, Host, User
from labhost.network import addresses, bridges


def render(host: Host, user: User, extra: Iterable[str]) -> str:
    """`extra` are more lines: limits, and mounts of this start."""
    config = host.config
    lines = [
        *_base(host, user),
        "lxc.net.0.type = veth",
        f"lxc.net.0.link = {bridges.name_of(user)}",
        "lxc.net.0.flags = up",
        "lxc.net.0.name = eth0",
        f"lxc.net.0.hwaddr = {addresses.mac_address(user.address)}",
        f"lxc.net.0.ipv4.address = {user.address}/{config.container.network.prefixlen}",
        f"lxc.net.0.ipv4.gateway = {config.container.gateway}",
        *(lxc.mount_entry(*mount[:2], read_only=mount.read_only) for mount in config.container.mounts),
    ]
    return "\n".join([*lines, *extra]) + "\n"


def render_provisioning(host: Host, user: User) -> str:
    """For a run without boot: no network, no mounts of the lab, and without the half second of lxcfs's reboot hook."""
    return "\n".join([*_base(host, user), "lxc.net.0.type = empty", "lxc.hook.post-stop ="]) + "\n"


def _base(host: Host, user: User) -> list[str]:
    apparmor = host.config.container.apparmor
    return [
        "# Written by labhost; changes are lost at the next start.",
        f"lxc.include = {host.paths.lxc_share}/common.conf",
        f"lxc.include = {host.paths.lxc_share}/userns.conf",
        f"lxc.arch = {os.uname().machine}",
        f"lxc.idmap = u 0 {user.subuid} {SUBUID_COUNT}",
        f"lxc.idmap = g 0 {user.subuid} {SUBUID_COUNT}",
        f"lxc.rootfs.path = dir:{lxc.container_folder(host, user.name)}/rootfs",
        f"lxc.uts.name = {host.config.server.name}",
        "lxc.tty.max = 0",
        "lxc.console.path = none",
        *([f"lxc.apparmor.profile = {apparmor}"] if apparmor else []),
    ]
