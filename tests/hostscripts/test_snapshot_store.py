"""Cases S1 and S4: snapshots as files, their names, and incomplete snapshots."""

import hashlib
import json
from dataclasses import replace
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


def make(host: Host, name: str, user: str = "alice", created_at: float = 1.0) -> Manifest:
    with snapshot_store.open_new(host, user, name) as stream:
        stream.write(TEXT)
    sha256 = hashlib.sha256(TEXT).hexdigest()
    manifest = Manifest(name, user, "gpu17", created_at, "overlay", "0123456789ab", 100, len(TEXT), sha256)
    snapshot_store.publish(host, manifest)
    return manifest


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
    make(host, "one", user="bob")
    assert snapshot_store.list_snapshots(host, "alice") == []
    with pytest.raises(Refused, match="no snapshot one"):
        snapshot_store.find(host, "alice", "one")


def test_s1_an_invalid_manifest_is_ignored(host: Host) -> None:
    right = make(host, "one")
    for wrong in (
        {"user": "bob"},
        {"name": "two"},
        {"storage": "zfs"},
        {"template": "../../etc"},
        {"created_at": 1e300},
        {"size": "1"},
    ):
        changed = replace(right, **wrong)
        path = snapshot_store.folder(host, "alice") / "one.json"
        snapshot_store.publish(host, replace(changed, user="alice", name="one"))
        text = path.read_text().replace('"user": "alice"', f'"user": "{changed.user}"')
        path.write_text(text.replace('"name": "one"', f'"name": "{changed.name}"'))
        assert snapshot_store.list_snapshots(host, "alice") == [], wrong


def test_a_manifest_of_a_newer_version_is_read(host: Host) -> None:
    manifest = make(host, "one")
    path = snapshot_store.folder(host, "alice") / "one.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"comment": "new"}))
    assert snapshot_store.list_snapshots(host, "alice") == [manifest]


def test_snapshots_are_listed_by_age(host: Host) -> None:
    for name, created_at in (("b", 1.0), ("a", 2.0), ("c", 3.0)):
        make(host, name, created_at=created_at)
    assert [one.name for one in snapshot_store.list_snapshots(host, "alice")] == ["b", "a", "c"]
    assert snapshot_store.templates_in_use(host) == {"0123456789ab"}


def _fill_the_disk(stream: IO[bytes]) -> None:
    stream.write(TEXT)
    raise OSError(28, "No space left on device")


def test_s4_a_failed_write_leaves_nothing(host: Host) -> None:
    with pytest.raises(OSError, match="No space"), snapshot_store.open_new(host, "alice", "one") as stream:
        _fill_the_disk(stream)
    assert list(snapshot_store.folder(host, "alice").iterdir()) == []


def test_s4_leftovers_are_removed_and_complete_snapshots_stay(host: Host) -> None:
    make(host, "whole")
    folder = snapshot_store.folder(host, "alice")
    (folder / ".half.tar.zst.new").write_bytes(TEXT)
    (folder / "unnamed.tar.zst").write_bytes(TEXT)  # killed before its manifest
    snapshot_store.remove_leftovers(host, "alice")
    assert sorted(path.name for path in folder.iterdir()) == ["whole.json", "whole.tar.zst"]


def test_r7_without_free_space_nothing_is_started(tmp_path: Path) -> None:
    tree.check_free_space(tmp_path, 1 << 20)
    with pytest.raises(LabhostError, match="disk is low"):
        tree.check_free_space(tmp_path, 1 << 60)


@pytest.mark.parametrize("harm", [b"", b"an archivf", TEXT + b"x", None])
def test_s4_a_damaged_archive_is_not_used(host: Host, harm: bytes | None) -> None:
    manifest = make(host, "one")
    path = snapshot_store.folder(host, "alice") / "one.tar.zst"
    path.unlink() if harm is None else path.write_bytes(harm)
    with pytest.raises(LabhostError, match="damaged"), snapshot_store.open_verified(host, manifest):
        pass


def test_a_folder_that_is_not_mounted_is_not_written_to(host: Host) -> None:
    (host.config.snapshots.folder / "gpu17").rmdir()  # type: ignore[operator]
    with pytest.raises(LabhostError, match="mounted"):
        snapshot_store.folder(host, "alice")
    assert snapshot_store.templates_in_use(host) is None, "needed templates are unknown, so none may be removed"


def test_without_a_folder_there_are_no_snapshots(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    with pytest.raises(Refused, match="--snapshots"):
        snapshot_store.list_snapshots(host, "alice")
    assert snapshot_store.templates_in_use(host) == set()


def test_a_folder_that_others_can_read_is_refused(host: Host) -> None:
    (host.config.snapshots.folder / "gpu17").chmod(0o755)  # type: ignore[operator]
    with pytest.raises(Refused, match="0700"):
        snapshot_store.prepare(host)
