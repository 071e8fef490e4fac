"""Cases L2, L3 and C4: the portal's answers, judged as if it were hostile."""

from pathlib import Path

import pytest
from labhost.errors import PortalUnavailable
from labhost.portal import client, ssh_config

from tests.hostscripts import hosts


@pytest.mark.parametrize("text", ["22031", "22031\n", "22000\n", "29999\n"])
def test_a_port_is_a_number_of_the_range(tmp_path: Path, text: str) -> None:
    assert client.parse_port(hosts.make(tmp_path).config, text) == int(text)


WRONG_PORTS = [
    "",
    "08",
    "65536",
    "-1",
    "80;id",
    "21999",
    "30000",
    "22031\n22032",
    " 22031",
    "22031 ",
    "٢٢٠٣١",
    "2" * 5000,
]


@pytest.mark.parametrize("text", WRONG_PORTS, ids=lambda text: repr(text[:10]))
def test_l2_another_port_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PortalUnavailable, match="port"):
        client.parse_port(hosts.make(tmp_path).config, text)


@pytest.mark.parametrize("start", [1_000_000_000, 2_147_483_647 - 65_535])
def test_a_block_is_wholly_in_the_range(tmp_path: Path, start: int) -> None:
    assert client.parse_subuid(hosts.make(tmp_path).config, f"{start}\n") == start


@pytest.mark.parametrize("start", [999_999_999, 2_147_483_647 - 65_534, 0, 100_000])
def test_c4_a_block_outside_the_range_is_refused(tmp_path: Path, start: int) -> None:
    with pytest.raises(PortalUnavailable):
        client.parse_subuid(hosts.make(tmp_path).config, f"{start}\n")


@pytest.mark.parametrize("start", [2**32 - 2 * 65_536 + 1, 2**32 - 65_536, 2**32 - 2])
def test_c4_the_last_ids_stay_free(tmp_path: Path, start: int) -> None:
    host = hosts.make(tmp_path, server__subuids="65536-4294967294")
    with pytest.raises(PortalUnavailable):
        client.parse_subuid(host.config, f"{start}\n")
    assert client.parse_subuid(host.config, f"{2**32 - 2 * 65_536}\n")


CONFIG = """# gpu17
Host gpu17-manage
    HostName 172.16.2.17
    User lqchen
    HostKeyAlias gpu17-manage

Host gpu17
    HostName 172.16.2.17
    Port 22031
    User lqchen
    HostKeyAlias gpu17
"""


def test_the_contracts_ssh_config_passes_unchanged() -> None:
    assert ssh_config.check(CONFIG) == CONFIG


WRONG_LINES = [
    "ProxyCommand id",
    "    ProxyCommand id",
    "Match exec id",
    "Include /etc/passwd",
    "Host a b",
    "Host *",
    "    HostName $(id)",
    "    Port 22;id",
    "    User=-oProxyCommand=id",
    "    hostname x",
    "    LocalCommand x",
    "# \x1b[2J",
    "    HostName -x",
    '    HostName "a"',
]


@pytest.mark.parametrize("line", WRONG_LINES)
def test_l3_another_line_is_refused(line: str) -> None:
    with pytest.raises(PortalUnavailable):
        ssh_config.check(CONFIG + line + "\n")


def test_l3_a_line_break_of_another_kind_hides_nothing() -> None:
    for separator in ("\r", "\x0b", "\x0c", "\x85", "\u2028"):
        with pytest.raises(PortalUnavailable):
            ssh_config.check(f"Host a{separator}ProxyCommand id\n")


def test_an_endless_ssh_config_is_refused() -> None:
    with pytest.raises(PortalUnavailable):
        ssh_config.check("# x\n" * (ssh_config.LINES_MOST + 1))


MARK = "0123456789abcdef" * 2


def test_pages_that_came_over_one_connection_are_told_apart() -> None:
    out = f"22031\n\n{MARK} 200\nkey\r\n\n\n{MARK} 200\n\n{MARK} 200\n".encode()
    assert client.split(out, MARK, ["/a", "/b", "/c"]) == ["22031\n", "key\r\n\n", ""]


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("22031\n", "cut"),
        (f"22031\n\n{MARK} 200\n1", "cut"),
        (f"a\n{MARK} 200\nb\n{MARK} 404\n", "answered 404 to /b"),
        (f"a\n{MARK} 200\n\udcff\n{MARK} 200\n", "not text"),
        (f"a\n{'f' * 32} 200\nb\n{MARK} 200\n", "cut"),
    ],
    ids=["nothing", "half", "status", "bytes", "another-mark"],
)
def test_l3_pages_that_are_cut_or_wrong_are_refused(out: str, words: str) -> None:
    with pytest.raises(PortalUnavailable, match=words):
        client.split(out.encode("utf-8", "surrogateescape"), MARK, ["/a", "/b"])
