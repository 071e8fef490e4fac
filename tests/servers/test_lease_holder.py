import os
import subprocess
import sys
from pathlib import Path

from servers.processes import lease_holder

CODE = "from servers.processes import lease_holder; print(lease_holder.current(), flush=True); input()"


def test_a_living_process_is_not_gone_and_a_dead_one_is() -> None:
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
    assert lease_holder.is_gone(name), "what is left of it is not alive"
    other.communicate()
    assert lease_holder.is_gone(name)


def test_a_process_id_that_was_given_again_is_another_process() -> None:
    assert lease_holder.is_gone(f"{lease_holder.current()}1")


def test_of_another_machine_and_of_nobody_nothing_is_known() -> None:
    world, pid, started = lease_holder.current().rsplit(":", 2)
    assert not lease_holder.is_gone(f"0{world}:{pid}:{started}1")
    assert not lease_holder.is_gone("") and not lease_holder.is_gone("::") and not lease_holder.is_gone(f"{world}:x:1")
