"""Cases S1, S4, S7 and Z11: snapshots as files, their names and owners, and incomplete snapshots."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

import pytest
from labhost.errors import LabhostError, Refused
from labhost.host.config import Host
from labhost.storage import snapshot_store, tree
from labhost.storage.snapshot_store import Manifest

from tests.hostscripts import hosts

TEXT = b"an archive"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "nas").mkdir()
    host = hosts.make(tmp_path, snapshots__folder=str(tmp_path / "nas"), snapshots__keep="3")
    snapshot_store.prepare(host)
    return host


ALICE, BOB = 200_000, 265_536  # first subordinate ids


def make(host: Host, name: str, owner: int = ALICE, created_at: float = 1.0) -> Manifest:
    with snapshot_store.open_new(host, owner, name) as stream:
        stream.write(TEXT)
    sha256 = hashlib.sha256(TEXT).hexdigest()
    what = ("overlay", "0123456789ab", 100, len(TEXT), sha256)
    manifest = Manifest(name, "alice", owner, "gpu17", created_at, *what)
    snapshot_store.publish(host, manifest)
    return manifest


def folder_of(host: Host, owner: int = ALICE) -> Path:
    assert host.config.snapshots.folder is not None
    return host.config.snapshots.folder / "gpu17" / str(owner)


BAD_NAMES = [
    "",
    "../bob/x",
    "/etc/passwd",
    "*",
    "-rf",
    "--help",
    ".",
    "..",
    ".hidden",
    "a/b",
    "a b",
    "a\n",
    "é",
    "x" * 65,
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name[:10]))
def test_s1_an_invalid_name_is_refused(host: Host, name: str) -> None:
    with pytest.raises(Refused, match="not a snapshot's name"):
        snapshot_store.check_snapshot_name(name)


def test_s1_another_persons_snapshot_is_not_found(host: Host) -> None:
    make(host, "one", BOB)
    assert snapshot_store.list_snapshots(host, ALICE) == []
    with pytest.raises(Refused, match="no snapshot one"):
        snapshot_store.find(host, ALICE, "one")


def test_s1_an_invalid_manifest_is_ignored(host: Host) -> None:
    right = make(host, "one")
    for wrong in (
        {"subuid": BOB},
        {"name": "two"},
        {"storage": "zfs"},
        {"template": "../../etc"},
        {"created_at": 1e300},
        {"size": "1"},
    ):
        path = folder_of(host) / "one.json"
        path.write_text(json.dumps(asdict(replace(right, **wrong))))
        assert snapshot_store.list_snapshots(host, ALICE) == [], wrong


def test_a_manifest_of_a_newer_version_is_read(host: Host) -> None:
    manifest = make(host, "one")
    path = folder_of(host) / "one.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"comment": "new"}))
    assert snapshot_store.list_snapshots(host, ALICE) == [manifest]


def test_snapshots_are_listed_by_age(host: Host) -> None:
    for name, created_at in (("b", 1.0), ("a", 2.0), ("c", 3.0)):
        make(host, name, created_at=created_at)
    assert [one.name for one in snapshot_store.list_snapshots(host, ALICE)] == ["b", "a", "c"]
    assert snapshot_store.templates_in_use(host) == {"0123456789ab"}


def _fill_the_disk(stream: IO[bytes]) -> None:
    stream.write(TEXT)
    raise OSError(28, "No space left on device")


def test_s4_a_failed_write_leaves_nothing(host: Host) -> None:
    with pytest.raises(OSError, match="No space"), snapshot_store.open_new(host, ALICE, "one") as stream:
        _fill_the_disk(stream)
    assert list(folder_of(host).iterdir()) == []


def test_s4_leftovers_are_removed_and_complete_snapshots_stay(host: Host) -> None:
    make(host, "whole")
    folder = folder_of(host)
    (folder / ".half.tar.zst.new").write_bytes(TEXT)
    (folder / "unnamed.tar.zst").write_bytes(TEXT)  # killed before its manifest
    snapshot_store.remove_leftovers(host, ALICE)
    assert sorted(path.name for path in folder.iterdir()) == ["whole.json", "whole.tar.zst"]


def test_r7_without_free_space_nothing_is_started(tmp_path: Path) -> None:
    tree.check_free_space(tmp_path, 1 << 20)
    with pytest.raises(LabhostError, match="disk is low"):
        tree.check_free_space(tmp_path, 1 << 60)


@pytest.mark.parametrize("harm", [b"", b"an archivf", TEXT + b"x", None])
def test_s4_a_damaged_archive_is_not_used(host: Host, harm: bytes | None) -> None:
    manifest = make(host, "one")
    path = folder_of(host) / "one.tar.zst"
    path.unlink() if harm is None else path.write_bytes(harm)
    with pytest.raises(LabhostError, match="damaged"), snapshot_store.open_verified(host, manifest):
        pass


def test_a_folder_that_is_not_mounted_is_not_written_to(host: Host) -> None:
    folder_of(host).parent.rmdir()
    with pytest.raises(LabhostError, match="mounted"), snapshot_store.open_new(host, ALICE, "one"):
        pass
    assert snapshot_store.templates_in_use(host) is None, "needed templates are unknown, so none may be removed"


def test_without_a_folder_there_are_no_snapshots(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    with pytest.raises(Refused, match="--snapshots"):
        snapshot_store.list_snapshots(host, ALICE)
    assert snapshot_store.templates_in_use(host) == set()


def test_a_folder_that_others_can_read_is_refused(host: Host) -> None:
    folder_of(host).parent.chmod(0o755)
    with pytest.raises(Refused, match="0700"):
        snapshot_store.prepare(host)


def uses(host: Host) -> list[Callable[[], object]]:
    """Everything that reads or writes in Alice's folder."""
    manifest = Manifest(
        "one", "alice", ALICE, "gpu17", 1.0, "dir", "", 100, len(TEXT), hashlib.sha256(TEXT).hexdigest()
    )
    return [
        lambda: snapshot_store.list_snapshots(host, ALICE),
        lambda: snapshot_store.find(host, ALICE, "one"),
        lambda: snapshot_store.open_new(host, ALICE, "two").__enter__(),
        lambda: snapshot_store.publish(host, manifest),
        lambda: snapshot_store.remove(host, manifest),
        lambda: snapshot_store.remove_leftovers(host, ALICE),
        lambda: snapshot_store.open_verified(host, manifest).__enter__(),
        lambda: snapshot_store.purge(host, ALICE),
    ]


@pytest.mark.parametrize("harm", ["the person's is a link", "the server's is a link", "others can write"])
def test_s7_root_works_only_in_its_own_folders(host: Host, tmp_path: Path, harm: str) -> None:
    make(host, "one")
    (folder_of(host) / ".half.tar.zst.new").write_bytes(TEXT)
    elsewhere, before = tmp_path / "elsewhere", sorted(path.name for path in folder_of(host).iterdir())
    if harm == "others can write":
        folder_of(host).chmod(0o770)
    else:
        moved = folder_of(host) if "person" in harm else folder_of(host).parent
        moved.rename(elsewhere)  # root's own and private, as is /root
        moved.symlink_to(elsewhere)
    for action in uses(host):
        with pytest.raises(Refused, match="must be a folder of root alone"):
            action()
    assert sorted(path.name for path in folder_of(host).iterdir()) == before
    assert snapshot_store.templates_in_use(host) is None


def test_s7_a_file_that_is_a_link_is_not_read(host: Host, tmp_path: Path) -> None:
    manifest = make(host, "one")
    for name in ("one.json", "one.tar.zst"):
        (folder_of(host) / name).rename(tmp_path / name)
        (folder_of(host) / name).symlink_to(tmp_path / name)
    assert snapshot_store.list_snapshots(host, ALICE) == []
    with pytest.raises(LabhostError, match="damaged"), snapshot_store.open_verified(host, manifest):
        pass
    snapshot_store.publish(host, manifest)
    assert not (folder_of(host) / "one.json").is_symlink()
    assert json.loads((tmp_path / "one.json").read_text())["name"] == "one"


def test_s7_folders_of_the_nas_itself_stay(host: Host) -> None:
    make(host, "one")
    (folder_of(host) / ".snapshot").mkdir()
    (folder_of(host).parent / "lost+found").mkdir()
    snapshot_store.remove_leftovers(host, ALICE)
    assert (folder_of(host) / ".snapshot").is_dir()
    assert snapshot_store.strange_entries(host, {ALICE}) == []


def test_z11_what_belongs_to_nobody_here_is_named(host: Host) -> None:
    make(host, "one")
    make(host, "one", BOB)
    server = folder_of(host).parent
    (server / "alice").mkdir(mode=0o700)
    (server / str(BOB)).chmod(0o755)
    assert snapshot_store.strange_entries(host, {ALICE, BOB}) == [str(server / str(BOB)), str(server / "alice")]
    assert str(server / str(ALICE)) in snapshot_store.strange_entries(host, {BOB})


def test_z11_a_purge_deletes_the_snapshots_of_one_person(host: Host) -> None:
    make(host, "one")
    others = make(host, "one", BOB)
    (folder_of(host) / ".half.tar.zst.new").write_bytes(TEXT)
    snapshot_store.purge(host, ALICE)
    snapshot_store.purge(host, ALICE)
    assert [path.name for path in folder_of(host).parent.iterdir()] == [str(BOB)]
    assert snapshot_store.list_snapshots(host, BOB) == [others]
