"""`top`: processes of people counted by uid, and the output of nvidia-smi."""

import os
from pathlib import Path

import pytest
from labhost.host.user_state import User
from labhost.shell import top
from labhost.shell.top import Process, Share, Usage

ALICE = User("alice", account="created", uid=1001, subuid=1_000_000_000)
BOB = User("bob", account="created", uid=1002, subuid=1_000_065_536)
SECOND, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
GPUS = """0, GPU-aaaa, NVIDIA A100, 87, 10240, 40960
1, GPU-bbbb, NVIDIA A100, [N/A], [N/A], [N/A]
"""
APPLICATIONS = """GPU-aaaa, 100, 8192
GPU-aaaa, 101, 1024
GPU-aaaa, 102, [N/A]
GPU-aaaa, 999, 512
GPU-cccc, 100, 4096
"""


def test_a_uid_belongs_to_an_account_a_container_or_the_server() -> None:
    owner = top.owners([ALICE, BOB, User("carol", subuid=5)])
    assert owner(1001) == ("alice", "account")
    assert owner(1_000_000_000) == owner(1_000_065_535) == ("alice", "container")
    assert owner(1_000_065_536) == ("bob", "container")
    assert owner(0) == owner(5) == owner(1_000_131_072) == top.SERVER


def test_cpu_use_is_measured_between_two_samples() -> None:
    before = {1: Process(1, 1001, 0, 1), 2: Process(2, 1_000_000_000, SECOND, 1)}
    now = [Process(1, 1001, SECOND, 10), Process(2, 1_000_000_000, 3 * SECOND, 100), Process(3, 0, 99 * SECOND, 5)]
    found = top.shares(before, now, 2.0, top.owners([ALICE]))
    assert found["alice", "account"] == Share(0.5, 10 * PAGE, 1)
    assert found["alice", "container"] == Share(1.0, 100 * PAGE, 1)
    assert found[top.SERVER] == Share(0.0, 5 * PAGE, 1)


def test_this_process_is_among_the_processes() -> None:
    mine = next(process for process in top.processes() if process.pid == os.getpid())
    assert mine.uid == os.getuid() and mine.pages > 100 and mine.ticks > 0


def test_a_process_name_may_contain_anything(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "8").mkdir()  # it ended: no stat
    (tmp_path / "self").mkdir()
    (tmp_path / "7/stat").write_text("7 (a) R 1 2) S " + " ".join(str(number) for number in range(1, 50)))
    assert [(process.pid, process.ticks, process.pages) for process in top.processes(tmp_path)] == [(7, 11 + 12, 21)]


def gpus(text: str = GPUS, applications: str = APPLICATIONS) -> Usage:
    found = Usage({("alice", "container"): Share()}, [])
    owners = {100: ("alice", "container"), 101: ("alice", "container"), 102: ("bob", "container")}
    top.add_gpus(found, text, applications, owners)
    return found


def test_memory_of_a_gpu_is_summed_by_person() -> None:
    found = gpus()
    assert found.shares["alice", "container"].gpu_memory == {0: 9216 << 20}
    assert found.shares["bob", "container"].gpu_memory == {0: 0}
    assert found.shares[top.SERVER].gpu_memory == {0: 512 << 20}
    assert (found.gpus[0].busy, found.gpus[0].total) == (87, 40960 << 20)
    assert (found.gpus[1].busy, found.gpus[1].used) == (None, None)


@pytest.mark.parametrize("text", ["", "No devices were found\n", "a, b\n", "x, GPU-a, n, 1, 2, 3\n", "\x00\xff" * 50])
def test_unknown_output_of_nvidia_smi_means_no_gpu(text: str) -> None:
    assert gpus(text, text).gpus == []


def test_the_table_starts_with_the_largest_share() -> None:
    lines = top.render(gpus())
    assert lines[0].split() == ["person", "place", "CPUs", "memory", "processes", "GPU", "memory"]
    assert [line.split()[0] for line in lines[1:4]] == ["alice", "bob", "-"]
    assert "0: 9 GB" in lines[1]
    assert lines[-2] == "GPU 0 (NVIDIA A100): 87% busy, 10 GB of 40 GB"
    assert lines[-1] == "GPU 1 (NVIDIA A100): ?% busy, ? of ?"


def test_programs_get_numbers() -> None:
    found = top.as_json(gpus())
    assert found["shares"][0]["person"] == "alice" and found["shares"][0]["gpu_memory"] == {"0": 9216 << 20}
    assert found["shares"][-1]["person"] is None
    assert found["gpus"][1]["busy"] is None
