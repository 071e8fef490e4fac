"""Cases F1-F3: the rules of the ports as text. tests/e2e/test_ports.py tests their effect."""

from labhost.host import config
from labhost.network import firewall
from labhost.network.firewall import Forward

from tests.hostscripts import hosts


def rules(*forwards: Forward) -> list[str]:
    return firewall.render_rules(config.parse(hosts.VALUES), forwards).splitlines()


def test_without_containers_nothing_is_forwarded() -> None:
    chains = [line for line in rules() if line.startswith(":")]
    assert chains == [
        ":LAB-IAM-PRE - [0:0]",
        ":LAB-IAM-OUT - [0:0]",
        ":LAB-IAM-POST - [0:0]",
        ":LAB-IAM-FWD - [0:0]",
        ":LAB-IAM-IN - [0:0]",
    ]
    assert "DNAT --to" not in "".join(rules())


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


def test_f3_rules_have_port_numbers_instead_of_service_names() -> None:
    wanted = [Forward(30865, "10.0.3.10", 443), Forward(30000, "10.0.3.10", 8080)]
    rules = firewall.render_rules(config.parse(hosts.VALUES), wanted)
    for line in (
        "-A LAB-IAM-PRE -d 172.16.2.17/32 -p tcp -m tcp --dport 30865 -j DNAT --to-destination 10.0.3.10:443",
        "-A LAB-IAM-OUT -d 172.16.2.17/32 -p tcp -m tcp --dport 30000 -j DNAT --to-destination 10.0.3.10:8080",
        "-A LAB-IAM-POST -s 10.0.3.10/32 -d 10.0.3.10/32 -p tcp -m tcp --dport 8080"
        " -m conntrack --ctstate DNAT -j MASQUERADE",
    ):
        assert line in rules.splitlines()
