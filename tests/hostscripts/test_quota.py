"""Case Z1: disk limits on real file systems. ext4 and XFS need a kernel with project quotas: see test_quota_emulated.py."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from labhost.accounts import tombstones
from labhost.host import User
from labhost.host.config import Host
from labhost.storage import quota, templates
from labhost.storage.overlay import OverlayStorage
from labhost.system import Account

from tests.hostscripts import hosts
from tests.lab.waiting import eventually

KINDS = os.environ.get("LAB_IAM_QUOTAS", "btrfs image").split()
MKFS = {"btrfs": "mkfs.btrfs -q", "image": "mke2fs -q -t ext4", "ext4": "mke2fs -q -t ext4 -O quota,project -E quotatype=prjquota",
        "xfs": "mkfs.xfs -q"}  # fmt: skip
OPTIONS = {"ext4": "loop,prjquota", "xfs": "loop,prjquota"}
MEGABYTE = 1 << 20
LIMIT = 96 * MEGABYTE
SLACK = 4 * MEGABYTE  # what the file system itself needs
ACCOUNT = Account("alice", 1001, 1001)

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def sh(command: str) -> str:
    return subprocess.run(["sh", "-ec", command], check=True, capture_output=True, text=True).stdout


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(kind: str, tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 GB for all that a server has."""
    path = tmp_path / "server"
    path.mkdir()
    sh(f"truncate -s 1G {path}.img; {MKFS[kind]} {path}.img; mount -o {OPTIONS.get(kind, 'loop')} {path}.img {path}")
    try:
        yield path
    finally:
        # A mount namespace that another test has just made may still hold a copy.
        eventually(lambda: subprocess.run(["umount", "-R", path]).returncode == 0, "unmounted")


@pytest.fixture
def host(kind: str, server: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Overlay over an unpacked template with one file; a small bound for the number of files."""
    made = hosts.make(server, container__quota="image" if kind == "image" else "auto", container__storage="overlay")
    below = templates.rootfs(made, "0123456789ab")
    below.mkdir(parents=True)
    (below / "of-the-template").write_text("x" * 100)
    monkeypatch.setattr(templates, "unpack", lambda _: "0123456789ab")
    monkeypatch.setattr(quota, "SPARE_INODES", 1000)
    return made


def person(host: Host, name: str, subuid: int = hosts.SUBUID, disk: int = LIMIT) -> User:
    user = User(name, subuid=subuid, storage="overlay", limits={"disk": str(disk)})
    (host.paths.home / name / ".local/share/lxc").mkdir(parents=True)
    OverlayStorage(host).create(user, ACCOUNT)
    return user


@pytest.fixture
def alice(host: Host) -> Iterator[User]:
    user = person(host, "alice")
    yield user
    leave(host, user)


def leave(host: Host, user: User) -> None:
    OverlayStorage(host).detach(user, ACCOUNT)
    OverlayStorage(host).release(user)


def rootfs(host: Host, user: User) -> Path:
    return OverlayStorage(host).rootfs(user)


WRITE = """
import json, os, sys
os.chdir(sys.argv[2])
os.setgroups([]); os.setresgid(*[int(sys.argv[1])] * 3); os.setresuid(*[int(sys.argv[1])] * 3)
size, files, error, piece = 0, 0, "", os.urandom(1 << 17)
try:
    if sys.argv[3] == "bytes":
        with open(sys.argv[4], "wb", buffering=0) as stream:
            while size < int(sys.argv[5]): size += stream.write(piece)
            os.fsync(stream.fileno())
    else:
        while files < int(sys.argv[5]):
            open(f"{sys.argv[4]}-{files}", "x").close()
            files += 1
except OSError as problem:
    error = problem.strerror
print(json.dumps([size, files, error]))
"""


def write(host: Host, user: User, what: str, name: str, most: int) -> tuple[int, int, str]:
    """As root of the container: bytes written, files made, and the error that ended it."""
    return write_in(rootfs(host, user), user, what, name, most)


def write_in(folder: Path, user: User, what: str, name: str, most: int) -> tuple[int, int, str]:
    command = [sys.executable, "-c", WRITE, str(user.subuid), str(folder), what, name, str(most)]
    size, files, error = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    os.sync()
    return size, files, error


FULL = ("Disk quota exceeded", "No space left on device")


def test_z1_a_container_cannot_use_more_than_its_limit(host: Host, alice: User) -> None:
    bob = person(host, "bob", hosts.SUBUID + 65536)
    before = os.statvfs(host.paths.home)
    size, _, error = write(host, alice, "bytes", "big", 1 << 30)
    assert error in FULL and LIMIT // 2 < size <= LIMIT
    after = os.statvfs(host.paths.home)
    assert (before.f_bavail - after.f_bavail) * after.f_frsize <= LIMIT + SLACK
    used = OverlayStorage(host).disk_usage(alice)
    assert used is not None and size <= used.used <= LIMIT + SLACK and used.limit == LIMIT
    assert write(host, bob, "bytes", "big", 20 * MEGABYTE)[0] == 20 * MEGABYTE, "it took another person's room"
    (rootfs(host, alice) / "big").unlink()
    assert write(host, alice, "bytes", "big", 20 * MEGABYTE)[0] == 20 * MEGABYTE, "deleting does not help"
    leave(host, bob)


def test_z1_a_container_cannot_make_files_without_end(host: Host) -> None:
    few, before = 16 * MEGABYTE, os.statvfs(host.paths.home)
    bob = person(host, "bob", disk=few)
    _, files, error = write(host, bob, "files", "small", 400_000)
    assert error in FULL and files > 500
    after = os.statvfs(host.paths.home)
    used = OverlayStorage(host).disk_usage(bob)
    assert used is not None and used.used <= few + SLACK
    if host.config.container.quota == "auto" and before.f_ffree:  # btrfs counts none, XFS makes them as it goes
        assert before.f_ffree - after.f_ffree <= few // quota.INODE_BYTES + 1100
    assert (before.f_bavail - after.f_bavail) * after.f_frsize <= 4 * few  # btrfs writes these twice
    leave(host, bob)


def test_z1_the_limit_covers_all_systems_together(host: Host, alice: User) -> None:
    """A rebuild is a rename, and what the previous system uses counts until it is gone."""
    storage = OverlayStorage(host)
    first, _, _ = write(host, alice, "bytes", "big", 60 * MEGABYTE)
    storage.install(alice, ACCOUNT, storage.create_fresh(alice, ACCOUNT))
    assert not (rootfs(host, alice) / "big").exists() and storage.disk_limit_enforced(alice)
    second, _, error = write(host, alice, "bytes", "other", 1 << 30)
    assert error in FULL and first + second <= LIMIT
    with quota.some_room(host, alice, ACCOUNT):
        assert storage.roll_back(alice, ACCOUNT)
    assert (rootfs(host, alice) / "big").stat().st_size == first
    write(host, alice, "bytes", "more", 1 << 30)
    used = storage.disk_usage(alice)
    assert used is not None and used.used <= LIMIT + SLACK


def test_z1_who_fills_their_disk_can_start_and_delete_files(host: Host, alice: User) -> None:
    """What a start does: it mounts the system and writes the container's configuration."""
    storage, config = OverlayStorage(host), rootfs(host, alice).parent / "config"
    write(host, alice, "bytes", "big", 1 << 30)
    write(host, alice, "files", "small", 400_000)
    storage.detach(alice, ACCOUNT)
    with quota.some_room(host, alice, ACCOUNT):
        config.write_text("x" * 4096)
        storage.attach(alice, ACCOUNT)
    assert storage.disk_limit_enforced(alice)
    assert write(host, alice, "bytes", "again", 1 << 30)[0] < MEGABYTE, "the room stays"
    for file in rootfs(host, alice).glob("*-*"):
        if file.name != "of-the-template":
            file.unlink()
    (rootfs(host, alice) / "big").unlink()
    assert write(host, alice, "bytes", "again", 20 * MEGABYTE) == (20 * MEGABYTE, 0, "")


GROWS = [kind for kind in KINDS if kind != "image" or os.environ.get("LAB_IAM_QUOTAS")]  # needs CAP_SYS_RESOURCE


def test_z1_who_fills_their_disk_can_get_a_new_system(host: Host, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rebuild and the start after it do; the container runs when the previous system is removed."""
    storage = OverlayStorage(host)
    write(host, alice, "bytes", "big", 1 << 30)
    with quota.some_room(host, alice, ACCOUNT):
        fresh = storage.create_fresh(alice, ACCOUNT)
    with quota.some_room(host, alice, ACCOUNT):
        storage.install(alice, ACCOUNT, fresh)
        upper = rootfs(host, alice).parent / "layer/upper"
        assert write_in(upper, alice, "bytes", "account", 2 * MEGABYTE) == (2 * MEGABYTE, 0, "")
    write(host, alice, "bytes", "boot", 1 << 30)
    monkeypatch.setattr(quota.lxc, "is_running", lambda *_: True)
    with quota.some_room(host, alice, ACCOUNT):
        storage._slots(alice).discard_previous()
    assert not (upper.parent.parent / "layer.old").exists()


@pytest.mark.parametrize("kind", GROWS)
def test_z1_a_changed_limit_applies_at_the_next_start(kind: str, host: Host, alice: User) -> None:
    storage = OverlayStorage(host)
    alice.limits["disk"] = str(2 * LIMIT)
    with quota.some_room(host, alice, ACCOUNT):
        pass
    size, _, error = write(host, alice, "bytes", "big", 1 << 30)
    assert error in FULL and LIMIT * 1.5 < size <= 2 * LIMIT
    alice.limits["disk"] = str(LIMIT)
    quota.apply(host, alice)
    # An image never shrinks, and nobody says that it did.
    assert storage.disk_limit_enforced(alice) == (kind != "image")
    assert storage.disk_limit_obstacle(alice) == ("an image cannot shrink" if kind == "image" else "")
    (rootfs(host, alice) / "big").unlink()
    alice.limits.clear()
    quota.apply(host, alice)
    assert storage.disk_limit_enforced(alice)
    if kind != "image":
        assert write(host, alice, "bytes", "big", 3 * LIMIT)[2] == ""


def test_z1_removed_files_are_kept_by_one_rename_and_do_not_count_again(host: Host, alice: User) -> None:
    storage, home = OverlayStorage(host), host.paths.home / "alice"
    write(host, alice, "bytes", "big", 80 * MEGABYTE)
    storage.detach(alice, ACCOUNT)
    storage.release(alice)
    alice.kept_folder = str(tombstones.new_folder(host, "alice"))
    tombstones.move_aside(home, Path(alice.kept_folder))
    removed = tombstones.record(host, alice)
    assert list(overlay_versions(host)) == ["0123456789ab"], "the template of the kept files would be removed"
    again = person(host, "alice")
    assert write(host, again, "bytes", "big", 80 * MEGABYTE) == (80 * MEGABYTE, 0, "")
    assert write(host, again, "bytes", "more", 80 * MEGABYTE)[2] in FULL
    free = os.statvfs(host.paths.home).f_bavail
    tombstones.purge(host, removed)
    os.sync()
    assert not Path(alice.kept_folder).exists()
    assert (os.statvfs(host.paths.home).f_bavail - free) * 4096 > 70 * MEGABYTE


def overlay_versions(host: Host) -> set[str]:
    from labhost.storage import overlay

    return overlay.needed_versions(host)
