"""Case L3: a portal that lies about ~/.ssh/config."""

import pytest
from labhost.errors import PortalUnavailable
from labhost.portal import ssh_config

GOOD = "# made by the portal\nHost gpu1\n    HostName gpu1.example.org\n    Port 22001\n    User alice\n    HostKeyAlias gpu1-alice\n\n"


def test_l3_a_good_configuration_is_rendered_anew() -> None:
    assert ssh_config.check(GOOD) == GOOD
    assert ssh_config.check("Host  gpu1\n\tPort\t22\n") == "Host gpu1\n    Port 22\n"
    assert ssh_config.check("") == ""


@pytest.mark.parametrize(
    "line",
    [
        "ProxyCommand touch /tmp/evil",
        "LocalCommand id",
        "PermitLocalCommand yes",
        "Match exec id",
        "Include /etc/passwd",
        "IdentityFile ~/.ssh/other",
        "KnownHostsCommand /bin/sh",
        "host gpu1",
        "Host *",
        "Host a b",
        "Host -oProxyCommand=id",
        "Host=gpu1",
        "HostName $(id)",
        "HostName %h",
        'User "a"',
        "User",
        "Port 08",
        "Port 22;id",
        "Port -1",
        "Port 65536",
        "Port 123456",
        "Port \u0662\u0662",
        "# a\x1b[2J",
        "# " + "x" * 300,
        "HostName " + "a" * 254,
    ],
)
def test_l3_anything_else_is_refused(line: str) -> None:
    with pytest.raises(PortalUnavailable) as caught:
        ssh_config.check(f"{GOOD}{line}\n")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_l3_no_other_line_end_hides_a_line(end: str) -> None:
    with pytest.raises(PortalUnavailable):
        ssh_config.check(f"# comment{end}ProxyCommand id\n")


def test_l3_too_many_lines_are_refused() -> None:
    with pytest.raises(PortalUnavailable, match="too long"):
        ssh_config.check("\n" * (ssh_config.LINES_MOST + 1))
