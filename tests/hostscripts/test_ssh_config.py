"""Case L3: a hostile portal, or a newer one, generates ~/.ssh/config."""

import pytest
from labhost.errors import PortalUnavailable
from labhost.portal import ssh_config

GOOD = """# gpu17
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


def test_l3_a_good_configuration_is_rendered_again() -> None:
    assert ssh_config.check(GOOD) == GOOD
    assert ssh_config.check("Host  gpu1\n\tPort\t22\n") == "Host gpu1\n    Port 22\n"
    assert ssh_config.check("") == ""


@pytest.mark.parametrize(
    "line",
    [
        "Match exec id",
        "match all",
        "host gpu1",
        "    hostname x",
        "Host *",
        "Host a b",
        "Host -oProxyCommand=id",
        "Host=gpu1",
        "ProxyCommand=id",
        '"ProxyCommand" id',
        "HostName $(id)",
        "HostName %h",
        "HostName -x",
        'User "a"',
        "    User=-oProxyCommand=id",
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
def test_l3_a_wrong_line_is_refused(line: str) -> None:
    with pytest.raises(PortalUnavailable) as caught:
        ssh_config.check(f"{GOOD}{line}\n")
    assert str(caught.value).isprintable()


UNKNOWN = [
    "ProxyCommand touch /tmp/evil",
    "    LocalCommand \x1b[2J",
    "PermitLocalCommand yes",
    "Include /etc/passwd",
    "IdentityFile ~/.ssh/other",
    "KnownHostsCommand /bin/sh",
    "ServerAliveInterval 30",
]


@pytest.mark.parametrize("line", UNKNOWN)
def test_l3_a_keyword_of_a_newer_portal_is_left_out_with_a_warning(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(ssh_config.log, "write", lambda text, **_: logged.append(text))
    assert ssh_config.check(f"{GOOD}{line}\n") == GOOD
    [text] = logged
    assert line.split()[0] in text and line.split()[1] not in text


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_l3_no_other_line_end_hides_a_line(end: str) -> None:
    assert "ProxyCommand" not in ssh_config.check(f"Host a{end}ProxyCommand id\n")
    with pytest.raises(PortalUnavailable):
        ssh_config.check(f"Host a{end}Match exec id\n")


def test_l3_too_many_lines_are_refused() -> None:
    with pytest.raises(PortalUnavailable, match="too long"):
        ssh_config.check("\n" * (ssh_config.LINES_MOST + 1))
