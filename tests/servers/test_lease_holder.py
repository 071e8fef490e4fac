import os
import subprocess
import sys
from pathlib import Path

from servers.processes import lease_holder

CODE = "from servers.processes import lease_holder; print(lease_holder.current(), flush=True); input()"


def test_a_running_process_holds_its_lease_and_a_dead_one_does_not() -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", CODE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert other.stdout is not None
    name = other.stdout.readline().strip()
    assert name != lease_holder.current() and len(name) <= 64
    assert not lease_holder.is_gone(name) and not lease_holder.is_gone(lease_holder.current())
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert lease_holder.is_gone(name), "a zombie does not run"
    other.communicate()
    assert lease_holder.is_gone(name)


def test_a_reused_process_id_is_another_process() -> None:
    assert lease_holder.is_gone(f"{lease_holder.current()}1")


def test_processes_of_other_machines_are_unknown() -> None:
    world, pid, started = lease_holder.current().rsplit(":", 2)
    assert not lease_holder.is_gone(f"0{world}:{pid}:{started}1")
    assert not lease_holder.is_gone("") and not lease_holder.is_gone("::") and not lease_holder.is_gone(f"{world}:x:1")
