"""Which processes belong to a person's sessions, and that they end."""

import subprocess
import sys

import pytest
from labhost.errors import LabhostError
from labhost.system import logind, process_table
from labhost.system.process_table import Process

SESSION = ("/user.slice/user-1001.slice/session-5.scope",)
MANAGER = ("/user.slice/user-1001.slice/user@1001.service/app.slice/run-u1.scope",)
TABLE = [
    Process(10, 1, 0, "sshd", SESSION),
    Process(11, 10, 1001, "sshd", SESSION),
    Process(12, 11, 0, "sudo", SESSION),
    Process(13, 12, 0, "python3", SESSION),
    Process(14, 13, 265536, "tar", SESSION),
    Process(20, 1, 1001, "lxc-start", MANAGER),
    Process(21, 20, 265536, "systemd", (*MANAGER, "/user.slice/user-1001.slice/session-5.scope.x")),
    Process(30, 1, 0, "sshd", ("/user.slice/user-1002.slice/session-6.scope",)),
    Process(31, 30, 1002, "sshd", ("/user.slice/user-1002.slice/session-6.scope",)),
    Process(40, 1, 0, "sshd", ("/user.slice/user-998.slice/session-7.scope",)),
    Process(50, 1, 0, "sshd", ("/system.slice/ssh.service",)),
]


def test_z2_a_persons_sessions_include_what_runs_as_root_in_them() -> None:
    assert [process.pid for process in logind.of_sessions(TABLE, 1001)] == [10, 11, 12, 13, 14]


def test_z2_without_logind_the_sessions_are_the_descendants_of_the_persons_sshd() -> None:
    table = [process._replace(cgroups=("/system.slice/ssh.service",)) for process in TABLE[:5]] + TABLE[5:]
    assert [process.pid for process in logind.of_sessions(table, 1001)] == [11, 12, 13, 14]


def test_z2_nobody_elses_process_is_chosen() -> None:
    assert [process.pid for process in logind.of_sessions(TABLE, 1002)] == [30, 31]
    assert logind.of_sessions(TABLE, 100) == []


def test_processes_end_although_they_ignore_signals() -> None:
    command = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", command])
    process_table.end(lambda table: [one for one in table if one.pid == child.pid], seconds=5, owner="alice")
    assert child.wait(5) == -9


def test_processes_that_do_not_end_are_reported() -> None:
    with pytest.raises(LabhostError) as error:
        process_table.end(lambda _: [Process(2**22 + 1, 1, 1001, "sshd", ())], seconds=0, owner="alice")
    assert error.value.reason == "processes_left" and error.value.params["name"] == "alice"
