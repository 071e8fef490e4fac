"""Cases S5 and S6: a snapshot is published, and an older one removed, only if it can be recovered; needs root."""

import os
import pwd
import shlex
import signal
import sys
from pathlib import Path

import pytest
from labhost.accounts import linux_accounts
from labhost.container import snapshots
from labhost.errors import LabhostError, Refused
from labhost.host import User, user_state
from labhost.host.config import Host
from labhost.storage import drivers, snapshot_store, tar_listing, tree
from labhost.system import Progress, failpoints

from tests.hostscripts import hosts

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SUBUID = 1_200_000_000
LONG = "d" * 255


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for parent in tmp_path.parents:
        if parent != Path("/") and parent.stat().st_uid == 0:
            parent.chmod(parent.stat().st_mode | 0o711)
    tmp_path.chmod(0o755)
    (tmp_path / "nas").mkdir()
    host = hosts.make(tmp_path, snapshots__folder=str(tmp_path / "nas"), snapshots__keep="1")
    snapshot_store.prepare(host)
    return host


@pytest.fixture
def alice(host: Host, monkeypatch: pytest.MonkeyPatch) -> User:
    user = User("alice", uid=54321, account="created", registered=True, subuid=SUBUID, storage="dir")
    user_state.save_user(host, user)
    monkeypatch.setattr(linux_accounts, "passwd_entry", lambda *_: pwd.getpwnam("nobody"))
    root = rootfs(host, user)
    root.mkdir(parents=True)
    (root / "noise").write_bytes(os.urandom(8 << 20))
    for path in (root, root / "noise"):
        os.chown(path, SUBUID, SUBUID)
    return user


def rootfs(host: Host, user: User) -> Path:
    return drivers.driver_of(host, user).rootfs(user)


def create(host: Host, user: User, name: str) -> None:
    snapshots.create(host, user, Progress(sys.stderr), name)


def published(host: Host) -> list[str]:
    return sorted(path.name for path in Path(f"{host.config.snapshots.folder}/gpu17/{SUBUID}").iterdir())


OLD = ["old.json", "old.tar.zst"]


def test_a_snapshot_replaces_the_oldest(host: Host, alice: User) -> None:
    for name in ("old", "new"):
        create(host, alice, name)
    assert published(host) == ["new.json", "new.tar.zst"]


@pytest.mark.parametrize("program", ["tar", "zstd"])
def test_s5_a_program_that_is_killed_while_it_packs_leaves_the_old_snapshots(
    host: Host, alice: User, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(host, alice, "old")
    (rootfs(host, alice) / "more").write_bytes(os.urandom(8 << 20))
    hit = failpoints.hit

    def kill(step: str) -> None:
        hit(step)
        if step == "packing" and not killed:
            hosts.signal_child(program, signal.SIGKILL)
            killed.append(step)

    killed: list[str] = []
    monkeypatch.setattr(snapshots, "COMPRESS", ["/usr/bin/zstd", "-q", "-1", "-c"])  # no thread reads ahead
    monkeypatch.setattr(failpoints, "hit", kill)
    with pytest.raises(LabhostError, match=r"cannot be packed: .*nothing was saved"):
        create(host, alice, "new")
    assert killed and published(host) == OLD


def test_s5_an_archive_that_changed_on_its_way_to_the_disk_is_not_published(
    host: Host, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(host, alice, "old")
    reopened = snapshot_store.reopened

    def damaged(stream: object) -> object:
        path = Path(f"{host.config.snapshots.folder}/gpu17/{SUBUID}/.new.tar.zst.new")
        with path.open("r+b") as file:
            file.seek(-9, os.SEEK_END)
            file.write(b"X")
        return reopened(stream)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot_store, "reopened", damaged)
    with pytest.raises(LabhostError, match="holds other bytes than were written"):
        create(host, alice, "new")
    assert published(host) == OLD


def test_s5_a_listing_that_is_killed_publishes_nothing(
    host: Host, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(host, alice, "old")
    command = shlex.join(tar_listing.LIST_COMMAND)
    monkeypatch.setattr(tar_listing, "LIST_COMMAND", ["/bin/sh", "-c", f"{command}; kill -KILL $$"])
    with pytest.raises(LabhostError, match="cannot be packed: the snapshot is damaged"):
        create(host, alice, "new")
    assert published(host) == OLD


def make_long_path(folder: Path) -> None:
    place = os.open(folder, os.O_RDONLY)
    for _ in range(16):
        os.mkdir(LONG, dir_fd=place)
        os.chown(LONG, SUBUID, SUBUID, dir_fd=place)
        above, place = place, os.open(LONG, os.O_RDONLY, dir_fd=place)
        os.close(above)
    os.close(place)


def test_s6_a_path_that_no_archive_gives_back_is_refused(host: Host, alice: User) -> None:
    create(host, alice, "old")
    make_long_path(rootfs(host, alice))
    with pytest.raises(Refused, match=r"the path \./ddd\S+ is longer than 4095 bytes"):
        create(host, alice, "new")
    assert published(host) == OLD


def test_s6_a_path_that_became_too_long_while_it_was_packed_is_refused(
    host: Host, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_find_too_long", lambda *_: b"")
    make_long_path(rootfs(host, alice))
    with pytest.raises(LabhostError, match=r"has a path that is too long: \./ddd"):
        create(host, alice, "new")
    assert published(host) == []


@pytest.mark.parametrize("name", ["a link to b", "a -> b", 'quote " and \\ and \n', "\udcff", " link to "])
def test_s6_a_snapshot_with_strange_names_can_be_recovered(host: Host, alice: User, name: str) -> None:
    """They are not taken for links to files outside it."""
    strange = rootfs(host, alice) / name
    strange.touch()
    strange.with_name(f"{name} link to x").hardlink_to(strange)
    strange.with_name(f"{name} -> y").symlink_to('/etc" -> "/x')
    create(host, alice, "new")
    assert published(host) == ["new.json", "new.tar.zst"]
