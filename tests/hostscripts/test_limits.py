"""Limits: the portal's text, which is not trusted, and the rendered values."""

from pathlib import Path

import pytest
from labhost.container import lxc_config
from labhost.errors import PortalUnavailable
from labhost.host import limits
from labhost.host.user_state import User

from tests.hostscripts import hosts

FULL = "memory=68719476736\ncpus=2.5\nprocesses=4096\ngpus=0,2\ndisk=214748364800\n"
FREE = "memory=max\ncpus=max\nprocesses=max\ngpus=all\ndisk=max\n"
EVERY = frozenset({"cpu", "memory", "pids"})


def test_limits_of_the_portal_are_parsed() -> None:
    assert limits.parse(FULL) == {
        "memory": "68719476736", "cpus": "2.5", "processes": "4096", "gpus": "0,2", "disk": "214748364800",
    }  # fmt: skip
    assert limits.parse(FREE) == {}


WRONG = [
    "",
    "memory=max\n",
    FULL + "more=1\n",
    FULL + "memory=68719476736\n",
    FULL.replace("68719476736", "1"),
    FULL.replace("68719476736", "1" + "0" * 20),
    FULL.replace("68719476736", "64G"),
    FULL.replace("68719476736", "68719476736 "),
    FULL.replace("68719476736", "\uff16\uff18\uff17"),
    FULL.replace("2.5", "0"),
    FULL.replace("2.5", "0.01"),
    FULL.replace("2.5", "-1"),
    FULL.replace("2.5", "1e9"),
    FULL.replace("2.5", "nan"),
    FULL.replace("4096", "1"),
    FULL.replace("0,2", "0,"),
    FULL.replace("0,2", "0;id"),
    FULL.replace("0,2", "max"),
    FULL.replace("0,2", "0\x0blxc.hook.start = /x"),
    FULL.replace("0,2", "0\rlxc.hook.start = /x"),
    FULL.replace("gpus=", "gpus = "),
    "<html>sign in</html>",
    "x" * 100_000,
    FULL * 1000,
]


@pytest.mark.parametrize("text", WRONG, ids=lambda text: repr(text[-30:]))
def test_l3_other_text_is_refused(text: str) -> None:
    with pytest.raises(PortalUnavailable, match="limits"):
        limits.parse(text)


def test_limits_are_rendered() -> None:
    assert limits.render(limits.parse(FULL), EVERY) == [
        "lxc.pty.max = 256",
        "lxc.cgroup2.memory.max = 68719476736",
        "lxc.cgroup2.cpu.max = 250000 100000",
        "lxc.cgroup2.pids.max = 4096",
    ]
    assert limits.render(limits.parse(FREE), EVERY) == ["lxc.pty.max = 256"]


def test_without_its_controller_a_value_is_a_comment_and_not_enforced() -> None:
    read = limits.parse(FULL)
    lines = limits.render(read, {"memory"})
    assert [line.startswith("lxc.cgroup2.") for line in lines[1:]] == [True, False, False]
    assert lines[2] == "# no cpu controller here: lxc.cgroup2.cpu.max = 250000 100000"
    assert limits.not_enforced(read, {"memory"}) == ["cpus", "disk"]
    assert limits.summary(read, {"memory"}) == (
        "memory 64 GB, 2.5 CPUs (not enforced here), 4096 processes, GPUs 0,2, disk 200 GB (not enforced here)"
    )
    assert limits.not_enforced(read, {"memory", "cpu", "pids", "disk"}) == []
    assert limits.summary(read, {*EVERY, "disk"}).endswith(", disk 200 GB")
    assert limits.summary({}, EVERY) == "8192 processes"
    assert limits.summary({"gpus": "none"}, EVERY) == "8192 processes, no GPUs"


def test_controllers_are_those_of_the_persons_user_manager(tmp_path: Path) -> None:
    host = hosts.make(tmp_path)
    user = User("alice", uid=1005)
    assert limits.controllers(host, user) == frozenset()
    folder = tmp_path / "cgroup/user.slice/user-1005.slice/user@1005.service"
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text("memory pids\n")
    assert limits.controllers(host, user) == {"memory", "pids"}


@pytest.mark.parametrize(("value", "numbers"), [("all", None), ("none", set()), ("0", {0}), ("0,7,11", {0, 7, 11})])
def test_gpu_limits_are_rendered(value: str, numbers: set[int] | None) -> None:
    assert limits.gpus(User("a", limits={"gpus": value})) == numbers
    assert limits.gpus(User("a")) is None


def test_limits_are_in_the_configuration(tmp_path: Path) -> None:
    user = User("alice", subuid=1_000_000_000, address="10.0.3.160", limits=limits.parse(FULL))
    text = lxc_config.render(hosts.make(tmp_path), user, limits.render(user.limits, EVERY))
    assert "\nlxc.cgroup2.memory.max = 68719476736\n" in text
