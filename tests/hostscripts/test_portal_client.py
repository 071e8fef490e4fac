"""Cases L2, L3 and C4: the portal's pages are checked as if the portal were hostile."""

from pathlib import Path

import pytest
from labhost.errors import PortalUnavailable
from labhost.portal import client

from tests.hostscripts import hosts


@pytest.mark.parametrize("text", ["22031", "22031\n", "22000\n", "29999\n"])
def test_a_port_is_a_number_within_the_range(tmp_path: Path, text: str) -> None:
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
def test_a_block_is_entirely_within_the_range(tmp_path: Path, start: int) -> None:
    assert client.parse_subuid(hosts.make(tmp_path).config, f"{start}\n") == start


@pytest.mark.parametrize("start", [999_999_999, 2_147_483_647 - 65_534, 0, 100_000])
def test_c4_a_block_outside_the_range_is_refused(tmp_path: Path, start: int) -> None:
    with pytest.raises(PortalUnavailable):
        client.parse_subuid(hosts.make(tmp_path).config, f"{start}\n")


@pytest.mark.parametrize("start", [2**32 - 2 * 65_536 + 1, 2**32 - 65_536, 2**32 - 2])
def test_c4_the_last_ids_are_not_assigned(tmp_path: Path, start: int) -> None:
    host = hosts.make(tmp_path, server__subuids="65536-4294967294")
    with pytest.raises(PortalUnavailable):
        client.parse_subuid(host.config, f"{start}\n")
    assert client.parse_subuid(host.config, f"{2**32 - 2 * 65_536}\n")


MARK = "0123456789abcdef" * 2


def test_pages_fetched_over_one_connection_are_separated() -> None:
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
def test_l3_incomplete_or_invalid_pages_are_refused(out: str, words: str) -> None:
    with pytest.raises(PortalUnavailable, match=words):
        client.split(out.encode("utf-8", "surrogateescape"), MARK, ["/a", "/b"])
