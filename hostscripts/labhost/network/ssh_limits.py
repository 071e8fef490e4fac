"""iptables rules that bound the connections of containers to port 22: of this server, and of others.

sshd drops everybody's logins while it has too many connections without one. Containers share this server's address
towards others, so each server bounds its own containers there. connlimit counts the connections that are open; a rule
starts to count again when it is replaced, so that these are replaced only if they differ.
"""

from collections.abc import Iterable

from labhost.host import Config, Host
from labhost.system import run

IN, FORWARD = "LAB-IAM-SSH-IN", "LAB-IAM-SSH-FWD"
TABLE = "mangle"  # before the rules of anybody who accepts these connections
JUMPS = ((TABLE, "INPUT", IN), (TABLE, "FORWARD", FORWARD))
EACH_IN, ALL_IN = 10, 30  # to this server
EACH_OUT, ALL_OUT = 20, 200  # to all others; people work over these


def render_rules(config: Config) -> list[str]:
    """The rules as iptables-save prints them."""
    network, port = config.container.network, config.server.ssh_port
    rules = []
    for chain, where, ports, limits in (
        (IN, f"-s {network}", {port}, (EACH_IN, ALL_IN)),
        (FORWARD, f"-s {network} ! -d {network}", {22, port}, (EACH_OUT, ALL_OUT)),
    ):
        for number in sorted(ports):
            for most, mask in zip(limits, (32, 0), strict=True):
                new = f"-p tcp -m tcp --dport {number} --tcp-flags FIN,SYN,RST,ACK SYN"
                count = f"-m connlimit --connlimit-above {most} --connlimit-mask {mask} --connlimit-saddr"
                rules.append(f"-A {chain} {where} {new} {count} -j DROP")
    return rules


def apply_rules(host: Host, current: Iterable[str]) -> None:
    """Replaces the rules if they differ from those in `current`, TABLE's. The rules lock must be held."""
    wanted = render_rules(host.config)
    ours = tuple(f"-A {chain} " for chain in (IN, FORWARD))
    if sorted(wanted) == sorted(line for line in current if line.startswith(ours)):
        return
    text = "\n".join([f"*{TABLE}", *(f":{chain} - [0:0]" for chain in (IN, FORWARD)), *wanted, "COMMIT", ""])
    result = run(["/usr/sbin/iptables-restore", "--noflush", "-w", "10"], timeout=30, stdin=text.encode())
    result.check("the limits of SSH connections cannot be set", reason="rules_not_set")
