"""Cases H1-H5 on the real server: root inside the container attacks the next push of keys."""

import shlex
import threading
import time

import pytest

from tests.lab.lab import Lab
from tests.lab.people import Iam, paste, register, restore
from tests.lab.walk import Walk, body, eventually

KEYS = "/home/alice/.ssh/authorized_keys"
# What a push may change; everything else of the host must be as before.
WATCHED = "/etc /root /public /usr/local /home/iam /home/bob/.ssh"


def watched(lab: Lab) -> str:
    command = f"find {WATCHED} -xdev -not -path '*/rootfs/*' \\( -type f -exec md5sum {{}} + -o -printf '' \\)"
    return lab.servers["gpu17"].run(f"{command}; find {WATCHED} -xdev -printf '%p %U %G %m\\n'").stdout


@pytest.fixture
def alice(lab: Lab):  # type: ignore[no-untyped-def]
    person = register(lab, "alice")
    register(lab, "bob")
    person.ssh("gpu17-manage")
    push(lab)  # bob's keys are from now on as each later push has them
    yield person
    lab.servers["gpu17"].run(
        f"r={rootfs()}; chattr -i $r/home/alice/.ssh 2>/dev/null; rm -rf $r/home/alice/.ssh $r/home/evil", check=False
    )
    restore(lab)
    assert person.ssh("gpu17", "true").returncode == 0, "the next push did not heal it"


def rootfs() -> str:
    return "/home/alice/.local/share/lxc/alice/rootfs"


def attack(lab: Lab, command: str) -> None:
    """As root inside alice's container."""
    walk = Walk(lab)
    walk.user = "alice"
    pid = walk.lxc_info("-pH")
    lab.servers["gpu17"].run(f"nsenter -t {pid} -a -- /bin/sh -c {shlex.quote(command)}")


def push(lab: Lab) -> dict[str, dict[str, str]]:
    """A new state with a fresh comment-free key for alice, as the portal would send it."""
    keys = {name: [person.public_key] for name, person in lab.people.items() if person.config.read_text()}
    keys["alice"].append(lab.people["alice"].make_key(f"h{time.monotonic_ns()}"))
    began = time.monotonic()
    answer = Iam(lab, lab.servers["gpu17"]).set_keys(keys)
    assert time.monotonic() - began < 10, "the push hung"
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
    # A link in place of the file itself is simply replaced by the file; one on the way to it is refused.
    assert answer["container"] == ("written" if kind in ("dangling", "file") else "failed"), answer


def test_h2_swapped_at_full_speed_during_the_write(lab: Lab, alice: object) -> None:
    before = watched(lab)
    swap = "cd /home/alice; rm -rf real; cp -a .ssh real; while :; do rm -rf .ssh; ln -s /etc .ssh; rm -f .ssh; cp -a real .ssh; done"
    racer = threading.Thread(target=attack, args=(lab, f"timeout 15 sh -c '{swap}' || true"))
    racer.start()
    seen = set()
    while racer.is_alive():
        seen.add(push(lab)["alice"]["container"])
    racer.join()
    attack(lab, "rm -rf /home/alice/real")
    assert watched(lab) == before
    assert seen <= {"written", "unchanged", "failed"}


OBSTACLES = {
    "fifo": "rm -f {keys}; mkfifo {keys}",
    "socket": "rm -f {keys}; timeout 1 python3 -c 1 2>/dev/null; mkfifo {keys}",
    "directory": "rm -f {keys}; mkdir -p {keys}/x",
    "fifo-as-folder": "rm -rf /home/alice/.ssh; mkfifo /home/alice/.ssh",
}


@pytest.mark.parametrize("kind", OBSTACLES)
def test_h3_something_else_in_its_place_does_not_hang(lab: Lab, alice: object, kind: str) -> None:
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


def test_h5_what_was_written_is_accepted_by_the_containers_sshd(lab: Lab, alice: object) -> None:
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


def test_h6_nothing_of_the_container_is_run_by_the_host(lab: Lab, alice: object) -> None:
    """Hostile shell, ldconfig and driver libraries inside; start must neither hang nor run them outside."""
    person = lab.people["alice"]
    trap = "#!/bin/busybox sh\\ncat /proc/self/uid_map >> /pwned\\n"
    attack(
        lab,
        "for f in /sbin/ldconfig /usr/bin/nvidia-smi; do mv $f $f.real 2>/dev/null;"
        f" printf '{trap}' > $f; chmod 755 $f; done;"
        " rm -f /usr/lib/x86_64-linux-gnu/libcuda.so.1; ln -s /etc/shadow /usr/lib/x86_64-linux-gnu/libcuda.so.1",
    )
    before = watched(lab)
    person.ssh("gpu17-manage", "stop")
    person.ssh("gpu17-manage", timeout=90)
    assert watched(lab) == before
    assert lab.servers["gpu17"].run("test -e /pwned", check=False).returncode == 1
    attack(lab, "mv /sbin/ldconfig.real /sbin/ldconfig; rm -f /usr/bin/nvidia-smi")
