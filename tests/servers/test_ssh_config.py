import subprocess
from pathlib import Path

from servers.ssh_config import Target, render

EXPECTED = """\
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


def test_each_server_has_two_names() -> None:
    assert render([Target("gpu17", "172.16.2.17")], user="lqchen", port=22031) == EXPECTED


def test_servers_are_separated_by_an_empty_line() -> None:
    text = render([Target("gpu17", "172.16.2.17"), Target("gpu18", "gpu18.lab")], user="lqchen", port=22031)
    assert text.startswith(EXPECTED + "\nHost gpu18-manage\n") and text.endswith("HostKeyAlias gpu18\n")


def test_a_server_with_another_ssh_port_has_it_in_its_manage_entry() -> None:
    lines = render([Target("gpu17", "172.16.2.17", 2222)], user="lqchen", port=22031).splitlines()
    assert lines[1:4] == ["    HostName 172.16.2.17", "    Port 2222", "    User lqchen"]
    assert "    Port 22031" in lines


def test_without_servers_the_configuration_is_empty() -> None:
    assert render([], user="lqchen", port=22031) == ""


def test_ssh_reads_the_configuration_as_intended(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(render([Target("gpu17", "172.16.2.17")], user="lqchen", port=22031))
    done = subprocess.run(["ssh", "-F", str(config), "-G", "gpu17"], capture_output=True, text=True, check=True)
    seen = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    wanted = {"hostname": "172.16.2.17", "port": "22031", "user": "lqchen", "hostkeyalias": "gpu17"}
    assert wanted.items() <= seen.items()
    as_register = ["ssh", "-F", str(config), "-G", "register@gpu17-manage"]
    other = subprocess.run(as_register, capture_output=True, text=True, check=True).stdout
    assert "user register\n" in other and "port 22\n" in other
