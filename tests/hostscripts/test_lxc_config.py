"""The LXC configuration that root writes."""

from pathlib import Path

from labhost import lxc
from labhost.container import lxc_config
from labhost.host.user_state import User

from tests.hostscripts import hosts


def test_the_configuration_is_complete(tmp_path: Path) -> None:
    host = hosts.make(tmp_path, container__mounts="/data:/data:ro", container__apparmor="unconfined")
    user = User("lqchen", subuid=1_000_000_000, address="10.0.3.160")
    lines = lxc_config.render(host, user, [lxc.mount_entry("/dev/nvidia0", "/dev/nvidia0", file=True)]).splitlines()
    for line in (
        "lxc.idmap = u 0 1000000000 65536",
        "lxc.idmap = g 0 1000000000 65536",
        f"lxc.rootfs.path = dir:{tmp_path}/home/lqchen/.local/share/lxc/lqchen/rootfs",
        "lxc.uts.name = gpu17",
        "lxc.net.0.ipv4.address = 10.0.3.160/24",
        "lxc.net.0.ipv4.gateway = 10.0.3.1",
        "lxc.apparmor.profile = unconfined",
        "lxc.mount.entry = /data data none bind,optional,create=dir,ro 0 0",
        "lxc.mount.entry = /dev/nvidia0 dev/nvidia0 none bind,optional,create=file 0 0",
    ):
        assert line in lines
