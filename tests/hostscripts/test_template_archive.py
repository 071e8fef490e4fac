"""The template: checked once, and unpacked without the files that each system creates for itself."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from labhost.errors import LabhostError
from labhost.host.config import Host
from labhost.storage import template_archive, templates

from tests.hostscripts import hosts

FILES = {
    "sbin/init": "init",
    "usr/sbin/sshd": "sshd",
    "usr/sbin/useradd": "useradd",
    "etc/hostname": "x",
    "etc/machine-id": "not of this system",
    "etc/ssh/ssh_host_rsa_key": "secret",
    "etc/ssh/sshd_config": "x",
    "var/lib/dbus/machine-id": "not of this system",
    "dev/null": "x",
    "srv/etc/machine-id": "a file of the lab",
}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return hosts.make(tmp_path, container__template=str(tmp_path / "template"))


def pack(host: Host, prefix: str = "./", compress: str = "cat") -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, text in FILES.items():
            info = tarfile.TarInfo(prefix + name)
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text.encode()))
    archive = subprocess.run([compress], input=packed.getvalue(), capture_output=True, check=True).stdout
    host.config.container.template.write_bytes(archive)


@pytest.mark.parametrize("compress", ["cat", "gzip", "xz", "zstd"])
@pytest.mark.parametrize("prefix", ["./", ""])
def test_it_is_unpacked_without_host_keys_devices_and_machine_id(host: Host, prefix: str, compress: str) -> None:
    pack(host, prefix, compress)
    rootfs = templates.rootfs(host, templates.unpack(host))
    found = {str(path.relative_to(rootfs)): path.read_text() for path in rootfs.rglob("*") if path.is_file()}
    omitted = ("etc/ssh/ssh_host_rsa_key", "var/lib/dbus/machine-id", "dev/null")
    assert found == {name: text for name, text in FILES.items() if name not in omitted} | {"etc/machine-id": ""}
    assert templates.versions(host) == [template_archive.inspect(host).version]


def test_a_known_archive_is_not_read_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(host)
    found = template_archive.inspect(host)
    assert found.size == sum(map(len, FILES.values()))
    monkeypatch.setattr(template_archive, "_pipe", lambda *_, **__: pytest.fail("it was read again"))
    assert template_archive.inspect(host) == found
    monkeypatch.undo()
    (host.paths.state / "template.json").write_text("damaged")
    assert template_archive.inspect(host) == found


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda data: data[: len(data) // 2], "template_damaged"),
        (lambda data: b"not a tar archive" + data, "template_damaged"),
        (None, "template_missing"),
    ],
    ids=["truncated", "other", "missing"],
)
def test_a_damaged_archive_is_an_error(host: Host, harm: object, reason: str) -> None:
    pack(host, compress="gzip")
    path = host.config.container.template
    path.write_bytes(harm(path.read_bytes())) if callable(harm) else path.unlink()
    with pytest.raises(LabhostError, match="template") as caught:
        template_archive.inspect(host)
    assert caught.value.reason == reason


def test_a_template_that_cannot_boot_leaves_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FILES, "usr/sbin/sshd")
    pack(host)
    with pytest.raises(LabhostError, match="no /usr/sbin/sshd"):
        templates.unpack(host)
    assert list(templates.folder(host).iterdir()) == []


def test_used_versions_stay_and_others_are_removed(host: Host) -> None:
    pack(host)
    version = templates.unpack(host)
    other = templates.rootfs(host, "0123456789ab")
    other.mkdir(parents=True)
    (templates.folder(host) / "x.new-abc").mkdir()
    assert templates.prune(host, {version}) == ["0123456789ab"]
    assert [path.name for path in templates.folder(host).iterdir()] == [version]
