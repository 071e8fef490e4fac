"""host.conf: labhost reads what the set-up writes, reports a wrong value, and ignores unknown settings."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from labhost.admin import doctor
from labhost.errors import LabhostError
from labhost.host import config
from labhost.host.config import Mount, Paths, Range
from labhost.system import log

from tests.hostscripts import hosts
from tests.hostscripts.hosts import VALUES


def test_defaults_match_the_documentation() -> None:
    read = config.parse(VALUES)
    assert (read.server.ports, read.server.subuids) == (Range(22000, 29999), Range(1000000000, 2147483647))
    assert (read.server.forwards, read.server.forwards_each, read.driver.seconds) == (Range(30000, 32767), 5, 240)
    assert (read.container.groups, read.container.storage, read.driver.mode) == (("sudo",), "dir", "install")
    assert read.container.gateway == "10.0.3.1"


def test_a_written_file_can_be_read() -> None:
    values = VALUES | {"container.mounts": "/data:/data:ro\n/scratch:/scratch", "driver.mode": "bind"}
    text = config.render(values)
    assert config.parse(config.read_values(text)) == config.parse(values)
    assert config.render(config.read_values(text)) == text
    assert config.parse(values).container.mounts == (
        Mount("/data", "/data", True),
        Mount("/scratch", "/scratch", False),
    )


def test_x1_the_token_is_not_in_the_representation() -> None:
    assert VALUES["portal.token"] not in repr(config.parse(VALUES))


WRONG = {
    "portal.url": ["ftp://x", "http://x/ y", "http://x;id", "http://x/?a=b", "-o/tmp/x", "http://u:p@x/"],
    "portal.token": ["short", "with space in it....", "a" * 600, "0123456789abcde\n-x"],
    "server.name": ["", "GPU17", "gpu 17", "-gpu", "a.b", "gpu17\nlxc.hook.start = /x"],
    "server.address": ["gpu17", "::1", "1.2.3.4/24", "1.2.3.4 -j ACCEPT", "01.2.3.4"],
    "server.ports": ["22000", "9-5", "80-90", "22000-70000", "a-b", "22000 - 29999"],
    "server.subuids": ["1-70000", "1000000000-4294967295", "5-4"],
    "server.forwards": ["30000", "80-90", "30000-70000", "-", "30000-32767;id"],
    "server.forwards_each": ["", "-1", "101", "5.0", "x", "\u0665"],
    "driver.seconds": ["", "-1", "900", "1e2"],
    "container.network": ["10.0.3.1/24", "10.0.3.0", "::/64", "10.0.3.0/30"],
    "container.bridge": ["lxcbr0 -j", "a" * 16, "", "br/0"],
    "container.groups": ["sudo;id", "-G", "Sudo"],
    "container.mounts": ["relative:/x", "/a:relative", "/a b:/c", "/a:/../b", "/a:/b:rx", "/a"],
    "container.storage": ["zfs"],
    "container.apparmor": ["a b", "-x"],
    "container.template": ["template.tar", "/a/../b"],
    "driver.mode": ["", "none"],
    "driver.libraries": ["lib"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_an_error_that_names_it(name: str, value: str) -> None:
    with pytest.raises(LabhostError, match=name.split(".")[1]):
        config.parse(VALUES | {name: value})


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_missing_value_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(LabhostError, match="missing"):
        config.parse({key: value for key, value in VALUES.items() if key != name})


@pytest.mark.parametrize("text", ["url = x\n", "[portal]\nurl = a\nurl = b\n", f"[portal]\n{VALUES['portal.token']}\n"])
def test_x1_a_file_that_cannot_be_parsed_is_an_error_without_its_text(text: str) -> None:
    with pytest.raises(LabhostError, match=r"host\.conf cannot be read: line \d") as caught:
        config.read_values(text)
    assert VALUES["portal.token"] not in str(caught.value)


NEWER = "[portal]\nproxy = {token}\nabcdefghijklmnop = x\n[telemetry]\ninterval = 5\n"


def test_x1_unknown_settings_are_ignored_and_reported_without_their_values() -> None:
    values = VALUES | config.read_values(NEWER.format(token=VALUES["portal.token"]))
    assert config.parse(values) == config.parse(VALUES)
    # A key of 16 letters may be a token whose `token =` is missing.
    assert config.unknown_settings(values) == ("a hidden name", "portal.proxy", "telemetry.interval")


def test_unknown_settings_stay_in_the_file() -> None:
    values = VALUES | config.read_values(NEWER.format(token="x"))
    written = config.read_values(config.render(values))
    assert {name: text for name, text in written.items() if name not in config.DEFAULTS} == {
        "portal.proxy": "x",
        "portal.abcdefghijklmnop": "x",
        "telemetry.interval": "5",
    }


def test_unknown_settings_are_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(log, "write", lambda text, **_: logged.append(text))
    paths = Paths(config=tmp_path / "host.conf", state=tmp_path)
    paths.config.write_text(config.render(VALUES | {"server.colour": "blue"}))
    for _ in range(3):
        assert config.load(paths).unknown_settings == ("server.colour",)
    assert logged == ["host.conf: unknown settings are ignored: server.colour"]


def test_c4_a_range_contains_only_whole_blocks() -> None:
    block = Range(1_000_000, 1_000_000 + 65_535)
    assert block.contains(1_000_000, 65_536)
    assert not block.contains(1_000_001, 65_536) and not block.contains(999_999, 65_536)


def test_unknown_settings_are_notes_of_the_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = hosts.make(tmp_path)._replace(unknown_settings=("server.colour",))
    monkeypatch.setattr(doctor.inspection, "collect", lambda _: SimpleNamespace(notes=["another note"]))
    monkeypatch.setattr(doctor.checks, "run_checks", lambda _: [])
    report = doctor.examine(host, fix=False)
    assert report.ok and report.notes == ["host.conf: server.colour is unknown and ignored", "another note"]
