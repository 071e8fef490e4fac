"""Filters of everything that comes from containers: its source, and how many connections it may hold.

They name no container, so they are set once and stay: setting them again would forget the connections they count.
"""

from labhost.host import Host
from labhost.network.firewall import BRIDGES, IPTABLES, normalize_rule
from labhost.system import run

# At once, and new ones a second (after a burst of as many as at once): the kernel's table has 262,144 for everybody.
MOST, MOST_PER_SECOND = 4096, 200
# A packet's source must be an address whose route leads back to where it came from: that bridge's container. Only a
# DHCP client has none yet. Packets that belong to no connection would leave with the container's own address.
RULES = f"""\
-A LAB-IAM-FROM -s 0.0.0.0/32 -d 255.255.255.255/32 -p udp -m udp --sport 68 --dport 67 -j RETURN
-A LAB-IAM-FROM -m rpfilter --invert -j DROP
-A LAB-IAM-FROM -m conntrack --ctstate INVALID -j DROP
-A LAB-IAM-FROM -m conntrack ! --ctstate NEW -j RETURN
-A LAB-IAM-FROM -m hashlimit --hashlimit-above {MOST_PER_SECOND}/sec --hashlimit-burst {MOST}\
 --hashlimit-mode srcip --hashlimit-name lab-iam -j DROP
-A LAB-IAM-FROM -m connlimit --connlimit-above {MOST} --connlimit-mask 32 --connlimit-saddr -j DROP
"""
IP6TABLES = "/usr/sbin/ip6tables"
_JUMP = ["-t", "mangle", "-{}", "PREROUTING", "-i", BRIDGES, "-j", "LAB-IAM-FROM"]
_NO_IPV6 = ["-t", "raw", "-{}", "PREROUTING", "-i", BRIDGES, "-j", "DROP"]


def is_set(host: Host) -> bool:
    return _has_rules() and _has(IPTABLES, _JUMP) and (not _has_ipv6(host) or _has(IP6TABLES, _NO_IPV6))


def apply(host: Host) -> None:
    """Sets what is missing. The rules lock must be held."""
    if not _has_rules():
        text = f"*mangle\n:LAB-IAM-FROM - [0:0]\n{RULES}COMMIT\n"
        restored = run([f"{IPTABLES}-restore", "--noflush", "-w", "10"], timeout=30, stdin=text.encode())
        restored.check("the filters of the containers' bridges cannot be set", reason="filters_not_set")
    _insert(IPTABLES, _JUMP)
    if _has_ipv6(host):
        _insert(IP6TABLES, _NO_IPV6)


def _has_rules() -> bool:
    shown = run([f"{IPTABLES}-save", "-t", "mangle"], timeout=20)
    lines = [line for line in shown.out.decode("utf-8", "replace").splitlines() if line.startswith("-A LAB-IAM-FROM ")]
    return list(map(normalize_rule, lines)) == list(map(normalize_rule, RULES.splitlines()))


def _has_ipv6(host: Host) -> bool:
    return (host.paths.sysctls / "ipv6").is_dir()


def _has(program: str, rule: list[str]) -> bool:
    return run([program, "-w", "10", *(part.format("C") for part in rule)], timeout=20).ok


def _insert(program: str, rule: list[str]) -> None:
    if not _has(program, rule):
        inserted = run([program, "-w", "10", *(part.format("I") for part in rule)], timeout=20)
        inserted.check("the filters of the containers' bridges cannot be set", reason="filters_not_set")
