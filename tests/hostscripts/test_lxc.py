"""The output of LXC's commands is parsed."""

from labhost import lxc


def test_lxc_info_is_parsed() -> None:
    info = lxc.parse_info(
        "Name:           lqchen\nState:          RUNNING\nIP:             10.0.3.160\nIP:    fe80::1\n"
    )
    assert info.running and info.addresses == ("10.0.3.160", "fe80::1")
    assert lxc.parse_info("").state == "UNKNOWN"
