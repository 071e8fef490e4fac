"""Kill labhost at each of its failpoints. It lists them itself, so new ones are covered."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.lab import nvidia
from tests.lab.machine import Machine
from tests.lab.shell import Completed

LABHOST = "/usr/local/sbin/labhost"
SHELLS = {"/usr/sbin/nologin", "/public/login.bash"}
SHARED = ("/etc/subuid", "/etc/subgid", "/etc/lxc/lxc-usernet", "/etc/passwd", "/etc/group")
# What a kill must never leave behind, collected in one call by Python on the server.
_LOOK = """
import glob, json, pwd, subprocess, sys
name = sys.argv[1]
try: shell = pwd.getpwnam(name).pw_shell
except KeyError: shell = ""
people = [json.load(open(path)) for path in glob.glob("/var/lib/lab-iam/users/*.json")]
def run(*words): return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
out = {"shell": shell, "people": {p["name"]: [p["port"], p["address"]] for p in people}}
out["sudo"] = run("runuser", "-u", name, "--", "sudo", "-n", "id", "-u").stdout if shell else ""
out["rules"] = run("iptables-save", "-t", "nat").stdout
out["files"] = {path: open(path).read() for path in sys.argv[2:]}
print(json.dumps(out))
"""


@dataclass(frozen=True)
class Sight:
    """The traces of one person on a server at one moment."""

    shell: str
    sudo: str
    leads_to: dict[int, str]  # port -> address of a DNAT rule
    people: dict[str, tuple[int, str]]  # port and address as the journal has them
    others: str  # the shared files without this person's lines


def look(machine: Machine, name: str) -> Sight:
    words = " ".join([name, *SHARED])
    found = json.loads(machine.run(f"python3 - {words} <<'EOF'\n{_LOOK}\nEOF").stdout)
    rules = re.findall(r"-A LAB-IAM-PRE .*--dport (\d+) -j DNAT --to-destination ([0-9.]+):22", found["rules"])
    lines = [line for text in found["files"].values() for line in text.splitlines()]
    return Sight(
        found["shell"],
        found["sudo"].strip(),
        {int(port): address for port, address in rules},
        {person: (port, address) for person, (port, address) in found["people"].items()},
        "\n".join(_without(line, name) for line in lines if not re.match(rf"{name}[: ]", line)),
    )


def _without(line: str, name: str) -> str:
    """A line of /etc/group, without this member."""
    head, colon, members = line.rpartition(":")
    return f"{head}:{','.join(word for word in members.split(',') if word != name)}" if colon else line


def is_safe(before: Sight, now: Sight, name: str) -> None:
    """AssertionError if anybody has access that they should not have."""
    assert not now.shell or now.shell in SHELLS, now.shell
    assert now.sudo != "0"
    assert now.others == before.others, "a line of somebody else was changed"
    for port, address in now.leads_to.items():
        owners = [person for person, values in now.people.items() if values == (port, address)]
        assert len(owners) == 1, f"port {port} leads to {address}, which belongs to nobody"


def named(machine: Machine, command: str) -> list[str]:
    """Run it to its end. Returns the failpoints that it passed, in order, without repetitions."""
    done = machine.run(f"LABHOST_FAILPOINT='?' {command}")
    return list(dict.fromkeys(re.findall(r"^fault: (\S+)$", done.stderr, re.MULTILINE)))


def kill_at_each(
    machine: Machine,
    name: str,
    command: str,
    reset: Callable[[], object],
    after: Callable[[str], object] = lambda _: None,
) -> list[str]:
    """Kill `command` at each of its failpoints in turn. Each run continues from what the last one left.

    Where a step is no longer passed because the journal marks it as done, `reset` goes back to the start.
    `after` looks at what each kill left.
    """
    before = look(machine, name)
    steps = named(machine, command)
    assert steps, "it has no failpoints"
    reset()
    for step in steps:
        done = _killed(machine, command, step)
        if done.returncode == 0:
            reset()
            done = _killed(machine, command, step)
        assert done.returncode == 137, f"{step} was not passed: {done.stdout}{done.stderr}"
        is_safe(before, look(machine, name), name)
        after(step)
    machine.run(command)
    is_safe(before, look(machine, name), name)
    return steps


def _killed(machine: Machine, command: str, step: str) -> Completed:
    return machine.run(f"LABHOST_FAILPOINT='{step}' {command}; exit $?", check=False)


def lose_current(machine: Machine, name: str, command: str, step: str) -> None:
    """The server loses power right after this step of `command`, and boots again."""
    before = look(machine, name)
    assert _killed(machine, command, step).returncode == 137
    machine.reboot()
    nvidia.make_devices(machine)
    is_safe(before, look(machine, name), name)
