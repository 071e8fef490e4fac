"""The kernel features that the lab needs, each tried in new namespaces before anything is set up."""

import subprocess

NEEDED = {
    "mount namespaces": ["unshare", "--mount", "true"],
    "network namespaces": ["unshare", "--net", "true"],
    "user namespaces": ["unshare", "--user", "true"],
    "overlay file systems": "mount -t tmpfs none /mnt && mkdir /mnt/l /mnt/u /mnt/w /mnt/o"
    " && mount -t overlay -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w none /mnt/o",
    "bridges": "ip link add labiam0 type bridge",
    "veth pairs": "ip link add labiam1 type veth peer name labiam2",
    "iptables with NAT": "iptables -w -t nat -A PREROUTING -p tcp --dport 1 -j DNAT --to-destination 127.0.0.1:2",
    "iptables with conntrack": "iptables -w -A FORWARD -m conntrack --ctstate DNAT -j ACCEPT",
}
APART = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c"]


class KernelLacks(Exception):
    """The lab cannot boot here. The message is one line that says what to do."""


def check() -> None:
    """Raises KernelLacks with the first feature that this kernel, or this container, does not allow."""
    for feature, test in NEEDED.items():
        words = [*APART, test] if isinstance(test, str) else test
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise KernelLacks(
                f"no {feature} here ({reason}). The lab boots real servers: use a machine or a virtual machine whose kernel"
                " and container settings allow it. './lab run' and './lab test unit' do without."
            )
