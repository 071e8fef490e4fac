"""Free blocks and inodes, judged, and for the portal."""

from pathlib import Path

import pytest
from labhost.host import disk_space
from labhost.host.disk_space import Space

from servers import disks
from tests.hostscripts import hosts

GB = 1 << 30


@pytest.mark.parametrize(
    ("space", "shortage", "full"),
    [
        (Space(100 * GB, 50 * GB, 1000, 500), "", False),
        (Space(100 * GB, GB, 1_000_000, 500_000), "1 GB free", False),
        (Space(10_000 * GB, 150 * GB, 0, 0), "150 GB free", False),
        (Space(256 << 20, 128 << 20, 1000, 500), "", False),
        (Space(256 << 20, 16 << 20, 1000, 500), "16 MB free", False),
        (Space(100 * GB, 0, 1000, 500), "0 B free", True),
        (Space(100 * GB, 50 * GB, 1_000_000, 10), "10 inodes (files) free", True),
    ],
)
def test_z1_low_and_full(space: Space, shortage: str, full: bool) -> None:
    assert (space.shortage, space.is_full) == (shortage, full)
    assert bool(disks.Space(*space).shortage) == bool(shortage), "the portal judges alike"


def test_z1_a_full_disk_is_named_for_people_and_staff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = hosts.make(tmp_path, snapshots__folder=str(tmp_path))
    host.paths.config.write_text("")
    assert disk_space.warning(host) == ""
    monkeypatch.setattr(disk_space, "space_of", lambda _: Space(100 * GB, 0, 1000, 500))
    assert disk_space.warning(host).startswith("the disk of gpu17 is full: delete files")
    assert disk_space.low(host)[str(host.paths.home)] == "0 B free"


def test_z1_the_snapshot_folder_is_looked_at_by_a_process(tmp_path: Path) -> None:
    expected = disk_space.space_of(tmp_path).shortage
    assert disk_space._shortage_of_nas(tmp_path) == expected
    assert disk_space._shortage_of_nas(tmp_path / "away") == ""
