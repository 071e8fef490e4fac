"""Cases H1-H5 on the real server: root inside the container attacks the next push."""

import shlex
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.lab import Lab
from tests.lab.people import Iam, paste, register, restore
from tests.lab.waiting import eventually
from tests.lab.walk import Walk, body

KEYS = "/home/alice/.ssh/authorized_keys"
# Everything on the host that a push must not change: content, owner and mode must be as before.
WATCHED = "/etc /root /public /usr/local /srv /home/iam /home/bob/.ssh /var/lib/lab-iam/users/bob.json"
# As fast as possible: each swaps two names for 30 s (renameat2 with RENAME_EXCHANGE, number 316 on x86-64).
RACE = """
mkdir -p /race && cd /race && rm -rf /race/*
ln -s /etc folder-link; ln -s /etc/passwd file-link; ln -s /root home-link; ln -s /etc/shadow new-link
swap='my ($a, $b) = @ARGV; my $end = time + 30; my $n = 0;
while (time < $end) { for (1..1000) { $n++ if syscall(316, -100, $a, -100, $b, 2) == 0 } } print "$n\n"'
lure='my ($t, $n) = @ARGV; my $end = time + 30; my $k = 0;
while (time < $end) { for (1..1000) { $k++ if symlink($t, $n); unlink $n } } print "$k\n"'
perl -e "$swap" /home/alice/.ssh folder-link > 1 &
perl -e "$swap" /home/alice/.ssh/authorized_keys file-link > 2 &
perl -e "$swap" /home/alice home-link > 3 &
perl -e "$lure" /etc/shadow /home/alice/.ssh/.authorized_keys.lab-iam-new > 4 &
wait; cat 1 2 3 4
"""


def watched(lab: Lab) -> str:
    command = f"find {WATCHED} -xdev -not -path '*/rootfs/*' \\( -type f -exec md5sum {{}} + -o -printf '' \\)"
    return lab.servers["gpu17"].run(f"{command}; find {WATCHED} -xdev -printf '%p %U %G %m\\n'").stdout


@pytest.fixture
def alice(lab: Lab):  # type: ignore[no-untyped-def]
    person = register(lab, "alice")
    register(lab, "bob")
    person.ssh("gpu17-manage")
    yield person
    lab.servers["gpu17"].run(
        f"r={rootfs()}; chattr -i $r/home/alice/.ssh 2>/dev/null; rm -rf $r/home/alice/.ssh $r/home/evil", check=False
    )
    restore(lab)
    assert person.ssh("gpu17", "true").returncode == 0, "the next push did not repair it"


def rootfs() -> str:
    return "/home/alice/.local/share/lxc/alice/rootfs"


def attack(lab: Lab, command: str) -> str:
    """Run as root inside alice's container; returns the output."""
    walk = Walk(lab)
    walk.user = "alice"
    pid = walk.lxc_info("-pH")
    return lab.servers["gpu17"].run(f"nsenter -t {pid} -a -- /bin/sh -c {shlex.quote(command)}").stdout


def push(lab: Lab) -> dict[str, dict[str, str]]:
    """The keys of the server with a new key for alice, as the portal would send them."""
    keys: dict[str, list[str]] = {}
    for line in lab.servers["gpu17"].file("/home/register/.ssh/authorized_keys").splitlines():
        options, _, key = line.partition('" ')
        keys.setdefault(options.rpartition(" ")[2], []).append(key)
    keys["alice"].append(lab.people["alice"].make_key(f"h{time.monotonic_ns()}"))
    answer = Iam(lab, lab.servers["gpu17"], timeout=30).set_keys(keys)  # a push that hangs fails here
    assert "users" in answer.body, answer.body
    assert answer.body["users"]["bob"]["host"] in ("written", "unchanged"), "bob was delayed by alice"
    assert answer.body["users"]["alice"]["host"] == "written", answer.body
    return dict(answer.body["users"])


LINKS = {
    "absolute": "rm -rf {ssh}; ln -s /etc {ssh}",
    "relative": "rm -rf {ssh}; ln -s ../../../../../../../../../etc {ssh}",
    "dangling": "rm -f {keys}; ln -s /etc/cron.d/evil {keys}",
    "proc": "rm -rf {ssh}; ln -s /proc/1/root/etc {ssh}",
    "file": "rm -f {keys}; ln -s /etc/passwd {keys}",
    "home": "mv /home/alice /home/evil; ln -s /root /home/alice",
}


@pytest.mark.parametrize("kind", LINKS)
def test_h1_a_symlink_is_never_followed(lab: Lab, alice: object, kind: str) -> None:
    before = watched(lab)
    attack(lab, LINKS[kind].format(ssh="/home/alice/.ssh", keys=KEYS))
    answer = push(lab)["alice"]
    after = watched(lab)
    if kind == "home":
        attack(lab, "rm /home/alice; mv /home/evil /home/alice")
    assert after == before
    # A link in place of the file itself is replaced by the file; one in the path to it is refused.
    assert answer["container"] == ("written" if kind in ("dangling", "file") else "failed"), answer


def test_h2_a_folder_swapped_at_full_speed_during_the_write(lab: Lab, alice: object) -> None:
    before = watched(lab)
    with ThreadPoolExecutor() as pool:
        race = pool.submit(attack, lab, RACE)
        seen: Counter[str] = Counter()
        while not race.done():
            seen[push(lab)["alice"]["container"]] += 1
        swapped = [int(line) for line in race.result().split()]
    after = watched(lab)
    _undo_race(lab)
    assert after == before
    assert sum(swapped) > 100_000 and len(swapped) == 4, f"the race is too slow: {swapped}"
    assert sum(seen.values()) >= 10 and set(seen) <= {"written", "unchanged", "failed"}, seen


def _undo_race(lab: Lab) -> None:
    """The home is where the last exchange left it."""
    attack(
        lab,
        "if [ -L /home/alice ]; then rm /home/alice; mv /race/home-link /home/alice; fi; rm -rf /home/alice/.ssh /race",
    )


SOCKET = "socket(S, AF_UNIX, SOCK_STREAM, 0) && bind(S, sockaddr_un($ARGV[0])) || die $!"
# Each ends with a check that it is in place.
OBSTACLES = {
    "fifo": "rm -f {keys}; mkfifo {keys}; test -p {keys}",
    "socket": f"rm -f {{keys}}; perl -MSocket -e '{SOCKET}' {{keys}}; test -S {{keys}}",
    "directory": "rm -f {keys}; mkdir -p {keys}/x; test -d {keys}",
    "fifo-as-folder": "rm -rf /home/alice/.ssh; mkfifo /home/alice/.ssh; test -p /home/alice/.ssh",
}


@pytest.mark.parametrize("kind", OBSTACLES)
def test_h3_another_kind_of_file_in_its_place_does_not_hang(lab: Lab, alice: object, kind: str) -> None:
    attack(lab, OBSTACLES[kind].format(keys=KEYS))
    assert push(lab)["alice"]["container"] == ("failed" if kind in ("directory", "fifo-as-folder") else "written")


def test_h4_a_huge_or_unreadable_file_is_replaced(lab: Lab, alice: object) -> None:
    attack(lab, f"truncate -s 20G {KEYS}; chmod 000 {KEYS}")
    assert push(lab)["alice"]["container"] == "written"
    size = lab.servers["gpu17"].run(f"stat -c %s {rootfs()}{KEYS}").stdout
    assert int(size) < 10_000


def test_h4_a_hard_link_to_a_file_of_the_container_is_not_written_through(lab: Lab, alice: object) -> None:
    attack(lab, f"echo mine > /root/precious; rm -f {KEYS}; ln /root/precious {KEYS}")
    assert push(lab)["alice"]["container"] == "written"
    assert lab.servers["gpu17"].file(f"{rootfs()}/root/precious") == "mine\n"


def test_h5_the_containers_sshd_accepts_the_written_file(lab: Lab, alice: object) -> None:
    person = lab.people["alice"]
    attack(lab, "rm -rf /home/alice/.ssh")
    line = person.make_key("h5")
    paste(lab, "alice", line)
    path = f"{rootfs()}{KEYS}"
    machine = lab.servers["gpu17"]
    eventually(lambda: body(line) in machine.run(f"cat {path}", check=False).stdout, "the key in the container")
    assert person.ssh("gpu17", "stat -c '%U %a' .ssh .ssh/authorized_keys", key="h5").stdout.split() == [
        "alice",
        "700",
        "alice",
        "600",
    ]


def test_h6_the_host_runs_nothing_from_the_container(lab: Lab, alice: object) -> None:
    """With a hostile shell, ldconfig and driver libraries inside, start must neither hang nor run them outside."""
    person = lab.people["alice"]
    trap = '#!/bin/bash\\ncat /proc/self/uid_map >> /pwned\\nexec %s.real "$@"\\n'
    attack(
        lab,
        "for f in /sbin/ldconfig /usr/bin/nvidia-smi /usr/bin/dash; do mv $f $f.real 2>/dev/null;"
        f" printf '{trap}' $f > $f; chmod 755 $f; done;"
        " rm -f /usr/lib/x86_64-linux-gnu/libcuda.so.1; ln -s /etc/shadow /usr/lib/x86_64-linux-gnu/libcuda.so.1",
    )
    before = watched(lab)
    person.ssh("gpu17-manage", "stop")
    person.ssh("gpu17-manage", timeout=90)
    assert watched(lab) == before
    assert lab.servers["gpu17"].run("test -e /pwned", check=False).returncode == 1
    attack(lab, "for f in /sbin/ldconfig /usr/bin/dash; do mv $f.real $f; done; rm -f /usr/bin/nvidia-smi /pwned")
