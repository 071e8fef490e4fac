"""Cases P1 and P2: what sudo allows, and who can change what root runs."""

import pytest

from tests.lab.commands import COMMANDS
from tests.lab.lab import Lab
from tests.lab.people import register

HELPERS = {
    "iam": [
        '/home/iam/set_authorized_keys.py ""',
        "/root/new-lxc.bash --json",
        "/usr/local/sbin/labhost remove --json",
        "/usr/local/sbin/labhost status",
        "/usr/local/sbin/labhost suspend --json",
    ],
    "register": ["/root/new-lxc.bash --stdin"],
    "alice": [f"/usr/local/sbin/labhost user {command}" for command in sorted({*COMMANDS} - {"help"})],
}
ENTRY_POINTS = [
    "/public/login.bash",
    "/home/iam/iam-shell.bash",
    "/home/iam/set_authorized_keys.py",
    "/home/register/register.bash",
    "/root/new-lxc.bash",
    "/usr/local/sbin/labhost",
    "/usr/local/lib/lab-iam",
    "/etc/lab-iam/host.conf",
    "/etc/sudoers.d/lab-iam",
]


@pytest.mark.parametrize("account", HELPERS)
def test_p1_sudo_allows_only_the_helpers(lab: Lab, account: str) -> None:
    register(lab, "alice")
    listing = lab.servers["gpu17"].run(f"sudo -l -U {account}").stdout
    rules = [line.strip() for line in listing.splitlines() if line.strip().startswith("(")]
    allowed: list[str] = []
    for rule in rules:
        if "NOPASSWD:" in rule:
            assert rule.startswith("(root) NOPASSWD:"), rule
            allowed += [part.strip() for part in rule.partition("NOPASSWD:")[2].split(",")]
        else:
            # The sudo group, which the specification asks for, needs a password that nobody has.
            assert account == "alice" and rule == "(ALL : ALL) ALL", rule
    assert sorted(allowed) == sorted(HELPERS[account])


@pytest.mark.parametrize("account", HELPERS)
def test_p1_no_account_of_lab_iam_has_a_password(lab: Lab, account: str) -> None:
    register(lab, "alice")
    password = lab.servers["gpu17"].run(f"getent shadow {account}").stdout.split(":")[1]
    assert password[:1] in ("!", "*"), account


def test_p1_another_command_is_refused(lab: Lab) -> None:
    register(lab, "alice")
    machine = lab.servers["gpu17"]
    for account in HELPERS:
        for command in (
            "id",
            "/usr/local/sbin/labhost",
            "/usr/local/sbin/labhost user start x",
            "/usr/local/sbin/labhost remove alice",
            "/usr/local/sbin/labhost doctor --fix",
            "/root/new-lxc.bash bob",
        ):
            done = machine.run(f"runuser -u {account} -- sudo -n {command}", check=False)
            assert done.returncode == 1 and "password is required" in done.stderr, (account, command, done.stderr)


@pytest.mark.parametrize("path", ENTRY_POINTS)
def test_p2_what_root_runs_belongs_to_root_with_all_parents(lab: Lab, path: str) -> None:
    machine = lab.servers["gpu17"]
    listing = machine.run(f"p={path}; while :; do stat -c '%u %a %n' $p; [ $p = / ] && break; p=$(dirname $p); done")
    below = machine.run(f"find {path} -printf '%U %m %p\\n'")
    for line in (listing.stdout + below.stdout).splitlines():
        owner, mode, name = line.split(maxsplit=2)
        assert owner == "0" and not int(mode, 8) & 0o022, name


def test_p2_only_root_can_read_secrets(lab: Lab) -> None:
    machine = lab.servers["gpu17"]
    assert machine.status("/etc/lab-iam/host.conf") == "root root 600"
    assert machine.status("/var/lib/lab-iam") == "root root 700"
