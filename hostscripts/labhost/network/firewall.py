"""iptables rules that forward ports of the server to containers, and let their own traffic pass."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from labhost.host import Config, Host
from labhost.network import ssh_limits
from labhost.network.bridges import PREFIX
from labhost.system import run

IPTABLES = "/usr/sbin/iptables"
BRIDGES = f"{PREFIX}+"  # every container's bridge, as iptables writes it
JUMPS = (
    ("nat", "PREROUTING", "LAB-IAM-PRE"),
    ("nat", "OUTPUT", "LAB-IAM-OUT"),
    ("nat", "POSTROUTING", "LAB-IAM-POST"),
    ("filter", "FORWARD", "LAB-IAM-FWD"),
    ("filter", "INPUT", "LAB-IAM-IN"),
    *ssh_limits.JUMPS,
)
# What lxc-net allows on its own bridge: containers connect to the outside and get answers, and use its DNS and DHCP.
FILTER = f"""\
-A LAB-IAM-FWD -i {BRIDGES} -j ACCEPT
-A LAB-IAM-FWD -o {BRIDGES} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A LAB-IAM-IN -i {BRIDGES} -p udp -m udp --dport 53 -j ACCEPT
-A LAB-IAM-IN -i {BRIDGES} -p tcp -m tcp --dport 53 -j ACCEPT
-A LAB-IAM-IN -i {BRIDGES} -p udp -m udp --dport 67 -j ACCEPT
"""


class Forward(NamedTuple):
    """`port` of the server is forwarded to `container_port` of `address`."""

    port: int
    address: str
    container_port: int = 22


def render_rules(config: Config, forwards: Iterable[Forward]) -> str:
    """Input of `iptables-restore --noflush` that replaces our own chains and touches no other."""
    chains = {table: [f":{ours} - [0:0]" for where, _, ours in JUMPS if where == table] for table in ("nat", "filter")}
    nat = chains["nat"]
    for item in sorted(forwards, key=lambda forward: forward.port):
        to = f"-j DNAT --to-destination {item.address}:{item.container_port}"
        for chain in ("LAB-IAM-PRE", "LAB-IAM-OUT"):
            nat.append(f"-A {chain} -d {config.server.address}/32 -p tcp -m tcp --dport {item.port} {to}")
        # A container that connects to itself by the server's address must get the answers through the server.
        nat.append(
            f"-A LAB-IAM-POST -s {item.address}/32 -d {item.address}/32 -p tcp -m tcp --dport {item.container_port}"
            " -m conntrack --ctstate DNAT -j MASQUERADE"
        )
    return "\n".join(["*nat", *nat, "COMMIT", "*filter", *chains["filter"], f"{FILTER}COMMIT", ""])


def apply_rules(host: Host, forwards: Iterable[Forward]) -> None:
    """Replaces our rules by these. The rules lock must be held."""
    text, saved = render_rules(host.config, forwards), _saved()
    result = run(["/usr/sbin/iptables-restore", "--noflush", "-w", "10"], timeout=30, stdin=text.encode())
    result.check("the port rules cannot be set", reason="rules_not_set")
    ssh_limits.apply_rules(host, saved.get(ssh_limits.TABLE, []))
    for table, chain, ours in JUMPS:
        if f"-A {chain} -j {ours}" not in saved.get(table, []):
            added = run([IPTABLES, "-w", "10", "-t", table, "-I", chain, "-j", ours], timeout=20)
            added.check("the port rules cannot be set", reason="rules_not_set")


def current_rules() -> tuple[set[str], set[str]]:
    """The rules in our own chains, and the chains that are jumped to, as `iptables-save` prints them."""
    saved = _saved()
    ours = tuple(f"-A {chain} " for _, _, chain in JUMPS)
    rules = {line for lines in saved.values() for line in lines if line.startswith(ours)}
    return rules, {target for table, chain, target in JUMPS if f"-A {chain} -j {target}" in saved.get(table, [])}


def _saved() -> dict[str, list[str]]:
    """The lines of `iptables-save`, by table."""
    shown = run([f"{IPTABLES}-save"], timeout=20, max_output=16 << 20)
    shown.check("the port rules cannot be read", reason="rules_not_readable")
    tables: dict[str, list[str]] = {}
    for line in shown.out.decode("utf-8", "replace").splitlines():
        if line.startswith("*"):
            lines = tables.setdefault(line[1:], [])
        elif line.startswith("-A "):
            lines.append(line)
    return tables


def normalize_rule(rule: str) -> frozenset[str]:
    """A rule's options regardless of their order, which iptables-save changes."""
    return frozenset(re.split(r" (?=-)", rule))
