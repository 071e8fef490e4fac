"""Cases F1-F3: the rules of the ports as text. tests/e2e/test_ports.py tests their effect."""

from pathlib import Path

import pytest
from labhost.host import config
from labhost.network import firewall
from labhost.network.firewall import Forward

from tests.hostscripts import hosts


def rules(*forwards: Forward) -> list[str]:
    return firewall.render_rules(config.parse(hosts.VALUES), forwards).splitlines()


def test_without_containers_the_chains_are_empty() -> None:
    chains = [line for line in rules() if line.startswith(":")]
    assert chains == [
        ":LAB-IAM-PRE - [0:0]",
        ":LAB-IAM-OUT - [0:0]",
        ":LAB-IAM-POST - [0:0]",
        ":LAB-IAM-FWD - [0:0]",
    ]
    assert not [line for line in rules() if line.startswith("-A")]


def test_f1_only_the_servers_own_address_is_forwarded() -> None:
    forwarded = [line for line in rules(Forward(22031, "10.0.3.160")) if "DNAT --to" in line]
    assert len(forwarded) == 2  # from outside, and from the server itself
    for line in forwarded:
        assert "-d 172.16.2.17/32 -p tcp -m tcp --dport 22031 " in line
        assert line.endswith("--to-destination 10.0.3.160:22")


def test_chains_of_others_are_not_touched() -> None:
    for line in rules(Forward(22031, "10.0.3.160"), Forward(22032, "10.0.3.161")):
        assert line in ("*nat", "*filter", "COMMIT") or line.split()[0 if line[0] == ":" else 1].lstrip(":").startswith(
            "LAB-IAM-"
        )


@pytest.mark.parametrize(("filtering", "link", "mode"), [("1", "veth1", "1"), ("0", "veth1", "0"), ("1", "../x", "0")])
def test_hairpin_mode_is_set_only_where_bridged_packets_pass_iptables(
    tmp_path: Path, filtering: str, link: str, mode: str
) -> None:
    host = hosts.make(tmp_path)
    host.paths.bridge_filter.write_text(f"{filtering}\n")
    for port in ("veth1", "veth2", "../x"):
        folder = host.paths.interfaces / "lxcbr0/brif" / port
        folder.mkdir(parents=True)
        (folder / "hairpin_mode").write_text("0\n")
    firewall.allow_hairpin(host, link)
    assert (host.paths.interfaces / "lxcbr0/brif" / link / "hairpin_mode").read_text().strip() == mode
    assert (host.paths.interfaces / "lxcbr0/brif/veth2/hairpin_mode").read_text() == "0\n"


def test_f3_rules_have_port_numbers_instead_of_service_names() -> None:
    wanted = [Forward(30865, "10.0.3.10", 443), Forward(30000, "10.0.3.10", 8080)]
    rules = firewall.render_rules(config.parse(hosts.VALUES), wanted)
    for line in (
        "-A LAB-IAM-PRE -d 172.16.2.17/32 -p tcp -m tcp --dport 30865 -j DNAT --to-destination 10.0.3.10:443",
        "-A LAB-IAM-OUT -d 172.16.2.17/32 -p tcp -m tcp --dport 30000 -j DNAT --to-destination 10.0.3.10:8080",
        "-A LAB-IAM-FWD -o lxcbr0 -d 10.0.3.10/32 -p tcp -m tcp --dport 443 -m conntrack --ctstate DNAT -j ACCEPT",
        "-A LAB-IAM-POST -s 10.0.3.0/24 -d 10.0.3.10/32 -p tcp -m tcp --dport 8080"
        " -m conntrack --ctstate DNAT -j MASQUERADE",
    ):
        assert line in rules.splitlines()
