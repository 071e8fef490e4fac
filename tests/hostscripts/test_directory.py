"""Case S5 with storage `dir`: a template that was not unpacked to its end is no system; needs root."""

import gzip
import io
import os
import signal
import tarfile
import threading
from pathlib import Path

import pytest
from labhost.errors import LabhostError
from labhost.host import User
from labhost.host.config import Host
from labhost.storage.directory import DirectoryStorage
from labhost.system import Account

from tests.hostscripts import hosts

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SUBUID = 1_200_000_000
ALICE, ACCOUNT = User("alice", subuid=SUBUID), Account("nobody", 65534, 65534)
LAST = 32 << 20  # bytes of the last file, so that there is time to kill something


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for parent in tmp_path.parents:
        if parent != Path("/") and parent.stat().st_uid == 0:
            parent.chmod(parent.stat().st_mode | 0o711)
    tmp_path.chmod(0o755)
    host = hosts.make(tmp_path, container__template=str(tmp_path / "template"))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, size in (("sbin/init", 1), ("usr/sbin/sshd", 1), ("usr/sbin/useradd", 1), ("last", LAST)):
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mode = size, 0o755
            tar.addfile(info, io.BytesIO(bytes(size)))
    host.config.container.template.write_bytes(gzip.compress(packed.getvalue(), 1))
    (host.paths.home / "alice/.local/share/lxc/alice").mkdir(parents=True)
    return host


def test_a_fresh_system_belongs_to_the_ids_of_the_person(host: Host) -> None:
    system = DirectoryStorage(host).create_fresh(ALICE, ACCOUNT)
    status = (system / "last").stat()
    assert (status.st_uid, status.st_gid, status.st_size) == (SUBUID, SUBUID, LAST)


@pytest.mark.parametrize("program", ["sh", "gzip"])
def test_s5_a_template_whose_unpacking_is_killed_leaves_nothing(host: Host, program: str) -> None:
    killer = threading.Thread(target=hosts.signal_child, args=(program, signal.SIGKILL))
    killer.start()
    with pytest.raises(LabhostError, match="the template cannot be"):
        DirectoryStorage(host).create_fresh(ALICE, ACCOUNT)
    killer.join()
    assert list((host.paths.home / "alice/.local/share/lxc/alice").iterdir()) == []
