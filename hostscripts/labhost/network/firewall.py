"""iptables rules that forward ports of the server to containers."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from labhost.host import Config, Host
from labhost.network import ssh_limits
from labhost.system import files, run

_LINK = re.compile(r"[A-Za-z0-9_-]{1,15}", re.ASCII)
IPTABLES = "/usr/sbin/iptables"
JUMPS = (
    ("nat", "PREROUTING", "LAB-IAM-PRE"),
    ("nat", "OUTPUT", "LAB-IAM-OUT"),
    ("nat", "POSTROUTING", "LAB-IAM-POST"),
    ("filter", "FORWARD", "LAB-IAM-FWD"),
    *ssh_limits.JUMPS,
)


class Forward(NamedTuple):
    """`port` of the server is forwarded to `container_port` of `address`."""

    port: int
    address: str
    container_port: int = 22


def render_rules(config: Config, forwards: Iterable[Forward]) -> str:
    """Input of `iptables-restore --noflush` that replaces our own chains and touches no other."""
    bridge, network = config.container.bridge, config.container.network
    nat = [f":{chain} - [0:0]" for table, _, chain in JUMPS if table == "nat"]
    allow = [":LAB-IAM-FWD - [0:0]"]
    for item in sorted(forwards, key=lambda forward: forward.port):
        to = f"-j DNAT --to-destination {item.address}:{item.container_port}"
        for chain in ("LAB-IAM-PRE", "LAB-IAM-OUT"):
            nat.append(f"-A {chain} -d {config.server.address}/32 -p tcp -m tcp --dport {item.port} {to}")
        # A container that connects to the server's address must get the answers through the server.
        nat.append(
            f"-A LAB-IAM-POST -s {network} -d {item.address}/32 -p tcp -m tcp --dport {item.container_port}"
            " -m conntrack --ctstate DNAT -j MASQUERADE"
        )
        forwarded = "-m conntrack --ctstate DNAT -j ACCEPT"
        inward, outward = f"-o {bridge} -d {item.address}/32", f"-i {bridge} -s {item.address}/32"
        allow.append(f"-A LAB-IAM-FWD {inward} -p tcp -m tcp --dport {item.container_port} {forwarded}")
        allow.append(f"-A LAB-IAM-FWD {outward} -p tcp -m tcp --sport {item.container_port} {forwarded}")
    return "\n".join(["*nat", *nat, "COMMIT", "*filter", *allow, "COMMIT", ""])


def apply_rules(host: Host, forwards: Iterable[Forward]) -> None:
    """Replaces our rules by these. The rules lock must be held."""
    text = render_rules(host.config, forwards)
    result = run(["/usr/sbin/iptables-restore", "--noflush", "-w", "10"], timeout=30, stdin=text.encode())
    result.check("the port rules cannot be set", reason="rules_not_set")
    ssh_limits.apply_rules(host)
    for table, chain, ours in JUMPS:
        if not run([IPTABLES, "-w", "10", "-t", table, "-C", chain, "-j", ours], timeout=20).ok:
            added = run([IPTABLES, "-w", "10", "-t", table, "-I", chain, "-j", ours], timeout=20)
            added.check("the port rules cannot be set", reason="rules_not_set")


def allow_hairpin(host: Host, link: str) -> None:
    """Lets a container reach its own ports through the server's address where bridged packets pass iptables.

    There (with br_netfilter, which Docker loads) a packet returns to the bridge port that it came from, which a
    bridge allows only in hairpin mode. Elsewhere the packet is routed and nothing has to be done.
    """
    filtering = files.read_text(host.paths.bridge_filter)
    port = host.paths.interfaces / host.config.container.bridge / "brif" / link / "hairpin_mode"
    if (filtering or "").strip() == "1" and _LINK.fullmatch(link) and port.exists():
        port.write_text("1\n")


def current_rules() -> tuple[set[str], set[str]]:
    """The rules in our own chains, and the chains that are jumped to, as `iptables-save` prints them."""
    rules, jumps = set(), set()
    for table in dict.fromkeys(table for table, _, _ in JUMPS):
        shown = run(["/usr/sbin/iptables-save", "-t", table], timeout=20)
        shown.check("the port rules cannot be read", reason="rules_not_readable")
        for line in shown.out.decode("utf-8", "replace").splitlines():
            if line.startswith("-A LAB-IAM-"):
                rules.add(line)
            jumps |= {ours for where, chain, ours in JUMPS if table == where and line == f"-A {chain} -j {ours}"}
    return rules, jumps


def normalize_rule(rule: str) -> frozenset[str]:
    """A rule's options regardless of their order, which iptables-save changes."""
    return frozenset(re.split(r" (?=-)", rule))
