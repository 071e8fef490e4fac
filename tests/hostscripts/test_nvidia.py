"""Versions of the driver are read from links (case H6: nothing is run, no link of a container leads out of it)."""

import os
from pathlib import Path

import pytest
from labhost.gpu import nvidia
from labhost.host.config import Host
from labhost.host.user_state import User

from tests.hostscripts import hosts

LIBRARIES = "usr/lib/x86_64-linux-gnu"


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    (tmp_path / "rootfs" / LIBRARIES).mkdir(parents=True)
    return tmp_path / "rootfs"


def link(rootfs: Path, target: str, name: str = "libcuda.so.1") -> None:
    (rootfs / LIBRARIES / name).symlink_to(target)


def test_the_hosts_version_is_read_from_the_link(tmp_path: Path) -> None:
    host = hosts.make(tmp_path, driver__libraries=str(tmp_path))
    assert nvidia.host_version(host.config) == ""
    (tmp_path / "libcuda.so.1").symlink_to("libcuda.so.535.104.05")
    assert nvidia.host_version(host.config) == "535.104.05"


def test_the_hosts_version_is_read_through_debian_alternatives(tmp_path: Path) -> None:
    host = hosts.make(tmp_path, driver__libraries=str(tmp_path))
    (tmp_path / "libcuda.so.1").symlink_to(tmp_path / "alternative")
    (tmp_path / "alternative").symlink_to("libcuda.so.550.54")
    assert nvidia.host_version(host.config) == "550.54"


@pytest.mark.parametrize(
    "target", ["libcuda.so.535.104.05", f"/{LIBRARIES}/libcuda.so.535.104.05", "../../libcuda.so.535.104.05"]
)
def test_the_version_in_a_container_is_read(rootfs: Path, target: str) -> None:
    link(rootfs, target)
    assert nvidia.version_in_rootfs(rootfs) == "535.104.05"


def test_the_version_in_a_container_is_read_through_several_links(rootfs: Path) -> None:
    (rootfs / "etc/alternatives").mkdir(parents=True)
    link(rootfs, "/etc/alternatives/cuda")
    (rootfs / "etc/alternatives/cuda").symlink_to(f"/{LIBRARIES}/libcuda.so.535.104.05")
    assert nvidia.version_in_rootfs(rootfs) == "535.104.05"


def test_h6_an_absolute_link_is_read_in_the_container_not_on_the_host(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "next").symlink_to("libcuda.so.1.2.3")
    link(rootfs, str(tmp_path / "next"))
    assert nvidia.version_in_rootfs(rootfs) == ""


def test_h6_a_folder_that_leads_out_is_read_in_the_container(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host/libcuda.so.1").symlink_to("libcuda.so.1.2.3")
    (rootfs / LIBRARIES).rmdir()
    (rootfs / LIBRARIES).symlink_to(tmp_path / "host")
    assert nvidia.version_in_rootfs(rootfs) == ""
    (rootfs / LIBRARIES).unlink()
    (rootfs / LIBRARIES).symlink_to("../../../../../../../../.." + str(tmp_path / "host"))
    assert nvidia.version_in_rootfs(rootfs) == ""


TRICKS = [
    "libcuda.so.1",
    "/proc/self/root/x",
    "libcuda.so.1; id",
    "libcuda.so.$(id)",
    "libcuda.so.1.2\n",
    "x" * 4000,
    "libcuda.so.5",
]


@pytest.mark.parametrize("target", TRICKS, ids=lambda target: repr(target[:20]))
def test_h6_a_link_without_a_version_is_no_version(rootfs: Path, target: str) -> None:
    link(rootfs, target)
    assert nvidia.version_in_rootfs(rootfs) == ""


def test_h6_a_fifo_in_place_of_the_link_does_not_hang(rootfs: Path) -> None:
    os.mkfifo(rootfs / LIBRARIES / "libcuda.so.1")
    assert nvidia.version_in_rootfs(rootfs) == ""


@pytest.mark.root
def test_device_nodes_become_mount_points_and_nothing_else_does(tmp_path: Path) -> None:
    devices = tmp_path / "dev"
    (devices / "nvidia-caps").mkdir(parents=True)
    for name in ("nvidia0", "nvidiactl", "nvidia-caps/nvidia-cap1", "sda"):
        os.mknod(devices / name, 0o20666, os.makedev(1, 3))
    (devices / "nvidia1").symlink_to("sda")
    (devices / "nvidia2").touch()
    os.mknod(devices / "nvidia 3", 0o20666, os.makedev(1, 3))
    host = hosts.make(tmp_path, driver__devices=str(devices), driver__libraries=str(tmp_path))
    mounted = [entry.split()[3] for entry in nvidia.mounts(host.config)]
    assert mounted == ["dev/nvidia0", "dev/nvidiactl", "dev/nvidia-caps/nvidia-cap1"]
    assert nvidia.mounts(host.config, frozenset()) == []
    some = [entry.split()[3] for entry in nvidia.mounts(host.config, frozenset({1, 2}))]
    assert some == ["dev/nvidiactl", "dev/nvidia-caps/nvidia-cap1"]


def test_mode_bind_shares_the_hosts_libraries_read_only(tmp_path: Path) -> None:
    libraries = tmp_path / "lib"
    libraries.mkdir()
    for name in ("libcuda.so.535.104.05", "libnvidia-ml.so.535.104.05", "libc.so.6"):
        (libraries / name).touch()
    (libraries / "libcuda.so.1").symlink_to("libcuda.so.535.104.05")
    values = {"driver__mode": "bind", "driver__libraries": str(libraries), "driver__devices": str(tmp_path)}
    entries = nvidia.mounts(hosts.make(tmp_path, **values).config)
    assert [Path(entry.split()[3]).name for entry in entries if str(libraries) in entry] == [
        "libcuda.so.1",
        "libcuda.so.535.104.05",
        "libnvidia-ml.so.535.104.05",
    ]
    assert all(entry.split()[5].endswith(",ro") for entry in entries)


@pytest.fixture
def bound(tmp_path: Path) -> Host:
    """A server with `mode = bind` and two libraries."""
    libraries = tmp_path / "lib"
    libraries.mkdir()
    (libraries / "libcuda.so.535.104.05").touch()
    (libraries / "libcuda.so.1").symlink_to("libcuda.so.535.104.05")
    values = {"driver__mode": "bind", "driver__libraries": str(libraries), "driver__devices": str(tmp_path)}
    return hosts.make(tmp_path, **values)


def system_of(host: Host) -> tuple[User, Path]:
    """The root file system of a person on this server, with the folder of libraries."""
    rootfs = host.paths.home / "alice/.local/share/lxc/alice/rootfs"
    (rootfs / LIBRARIES).mkdir(parents=True)
    return User("alice"), rootfs


def test_links_of_an_installed_driver_are_removed_and_nothing_else(bound: Host) -> None:
    user, rootfs = system_of(bound)
    link(rootfs, "libcuda.so.535.104.05")
    link(rootfs, "elsewhere", "libother.so.1")
    (rootfs / LIBRARIES / "libcuda.so.535.104.05").write_text("hers")
    nvidia.remove_stale_links(bound, user)
    assert sorted(path.name for path in (rootfs / LIBRARIES).iterdir()) == ["libcuda.so.535.104.05", "libother.so.1"]


def test_h6_removing_links_never_leaves_the_container(bound: Host, tmp_path: Path) -> None:
    user, rootfs = system_of(bound)
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts/libcuda.so.1").symlink_to("x")
    (rootfs / LIBRARIES).rmdir()
    (rootfs / LIBRARIES).symlink_to(tmp_path / "hosts")
    nvidia.remove_stale_links(bound, user)
    assert (tmp_path / "hosts/libcuda.so.1").is_symlink()
