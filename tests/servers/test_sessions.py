"""Sessions that stay open, over real SSH to the real host program."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from servers import protocol, push_requests
from servers.ssh import sessions
from servers.ssh.dial import Endpoint, RemoteError
from servers.ssh.host import Host, Login
from servers.ssh.sessions import Sessions
from tests.lab.waiting import ends_within, eventually
from tests.servers.conftest import OTHER
from tests.servers.farm import ADDRESSES, Farm, gone_within, is_alive
from tests.servers.silence import Silence

HERE = ADDRESSES[0]


def push(revision: int) -> bytes:
    return protocol.frame(push_requests.build_set_keys(push_requests.Step(revision, protocol.digest({})), {}, {}))


@pytest.fixture
def pool() -> Iterator[Sessions]:
    pool = Sessions()
    yield pool
    pool.close()


def ask(pool: Sessions, farm: Farm, revision: int, *, there: Endpoint | None = None, seconds: float = 20) -> Any:
    with pool.session(there or farm.endpoint(), Login(farm.user, farm.iam_key), seconds=seconds) as session:
        return session.ask(push(revision))


def test_several_pushes_use_one_command_and_one_connection(farm: Farm, pool: Sessions) -> None:
    answers = [ask(pool, farm, revision) for revision in (1, 2, 3)]
    assert all(answer.ok for answer in answers) and [answer.revision for answer in answers] == [1, 2, 3]
    assert farm.commands() == ["set-keys"] and len(pool) == 1


def test_a_refusal_is_an_answer_and_the_session_stays_open(farm: Farm, pool: Sessions) -> None:
    ask(pool, farm, 5)
    assert ask(pool, farm, 4).code == "stale_revision"
    assert ask(pool, farm, 6).ok and farm.commands() == ["set-keys"]


def test_y2_a_dead_session_is_opened_again_within_the_same_attempt(farm: Farm, pool: Sessions) -> None:
    ask(pool, farm, 1)
    (pid,) = farm.pids()
    os.kill(pid, signal.SIGKILL)
    assert ask(pool, farm, 2).ok
    assert len(farm.commands()) == 2


def test_y2_a_host_that_dies_before_its_answer_is_asked_only_once_more(farm: Farm, pool: Sessions) -> None:
    ask(pool, farm, 1)
    (pid,) = farm.pids()
    os.kill(pid, signal.SIGSTOP)
    farm.behave(HERE, "garbage")
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(RemoteError) as refused:
        ask(pool, farm, 2)
    assert refused.value.code == "bad_answer" and len(farm.commands()) == 2 and len(pool) == 0


def test_y2_a_host_that_hangs_before_its_answer_times_out_and_its_program_ends(farm: Farm, pool: Sessions) -> None:
    ask(pool, farm, 1)
    (pid,) = farm.pids()
    os.kill(pid, signal.SIGSTOP)
    with ends_within(12), pytest.raises(RemoteError) as refused:
        ask(pool, farm, 2, seconds=1.5)
    os.kill(pid, signal.SIGCONT)
    assert refused.value.code == "timeout"
    assert len(pool) == 0 and gone_within(pid, 5)


def test_y2_a_host_that_hangs_during_the_transfer_times_out(farm: Farm, pool: Sessions) -> None:
    farm.behave(HERE, "deaf")
    with (
        pytest.raises(RemoteError) as refused,
        pool.session(farm.endpoint(), Login(farm.user, farm.iam_key), seconds=2) as session,
    ):
        session.ask(protocol.frame({"version": 1, "x": "y" * 12_000_000}))
    assert refused.value.code == "timeout"


def test_y2_an_interrupted_transfer_ends_the_real_host_program(farm: Farm, pool: Sessions) -> None:
    ask(pool, farm, 1)
    (pid,) = farm.pids()
    session = pool.take((farm.endpoint(), Login(farm.user, farm.iam_key)))
    assert session is not None
    session._channel.sendall(push(2)[:-3])
    session.close()
    assert gone_within(pid, 5)
    assert farm.applied_revision() == 1


def test_a_host_that_sends_unexpected_output_loses_its_session(farm: Farm, pool: Sessions) -> None:
    ask(pool, farm, 1)
    key = (farm.endpoint(), Login(farm.user, farm.iam_key))
    session = pool.take(key)
    assert session is not None
    session._channel.sendall(push(2))  # the answer is there before the next request
    eventually(session._channel.recv_ready, "the answer")
    pool.put_back(key, session)
    assert ask(pool, farm, 3).revision == 3 and len(farm.commands()) == 2


def test_y5_a_session_ends_when_another_key_is_pinned(farm: Farm, pool: Sessions) -> None:
    ask(pool, farm, 1)
    (pid,) = farm.pids()
    with pytest.raises(RemoteError) as refused:
        ask(pool, farm, 2, there=farm.endpoint(host_key=OTHER))
    assert refused.value.code == "host_key_changed" and len(farm.commands()) == 1
    assert gone_within(pid, 5)


def test_a_session_ends_when_the_address_changes(farm: Farm, pool: Sessions) -> None:
    ask(pool, farm, 1)
    (pid,) = farm.pids()
    assert ask(pool, farm, 2, there=replace(farm.endpoint(), address=ADDRESSES[1])).ok
    assert gone_within(pid, 5) and farm.commands(ADDRESSES[1]) == ["set-keys"] and len(pool) == 1


def test_an_idle_session_is_closed(farm: Farm, pool: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "IDLE_SECONDS", 0.5)
    monkeypatch.setattr(sessions, "SWEEP_SECONDS", 0.1)
    ask(pool, farm, 1)
    (pid,) = farm.pids()
    assert is_alive(pid) and gone_within(pid, 5) and len(pool) == 0


def test_an_idle_session_uses_no_cpu_and_ends_at_once(farm: Farm, pool: Sessions) -> None:
    ask(pool, farm, 1)
    session = pool.take((farm.endpoint(), Login(farm.user, farm.iam_key)))
    assert session is not None
    thread = Path(f"/proc/self/task/{session._host._connection.transport.native_id}/status")
    time.sleep(0.2)
    before = wakes(thread)
    time.sleep(1)  # the time in which it is counted
    assert wakes(thread) - before <= 2, "ten times a second for each server"
    with ends_within(5):
        session.close()


def wakes(thread: Path) -> int:
    """How often this thread has waited, see proc(5)."""
    return int(thread.read_text().split("\nvoluntary_ctxt_switches:", 1)[1].split()[0])


def test_a_child_process_has_its_own_pool(farm: Farm) -> None:
    mine = sessions.pool()
    ask(mine, farm, 1)
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe()

    def child() -> None:
        writer.send((len(sessions.pool()), ask(sessions.pool(), farm, 2).ok))
        sessions.pool().close()
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    assert reader.poll(20) and reader.recv() == (0, True)
    process.join(5)
    assert sessions.pool() is mine and ask(mine, farm, 3).ok
    assert len(farm.commands()) == 2, "the parent's session has ended"


def test_at_most_ten_handshakes_run_at_once(farm: Farm, pool: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, now, most = threading.Lock(), 0, 0
    three_at_once = threading.Barrier(3, timeout=20)
    real = Host._shake_hands

    def counted(self: Host, sock: socket.socket) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            real(self, sock)
            three_at_once.wait()
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(Host, "_shake_hands", counted)
    monkeypatch.setattr(sessions, "HANDSHAKES", 3)
    small = Sessions()
    servers = [Endpoint(f"gpu{n}", address, farm.port, farm.host_key) for n, address in enumerate(ADDRESSES[:9])]
    threads = [threading.Thread(target=ask, args=(small, farm, 1), kwargs={"there": there}) for there in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(small) == 9 and most == 3
    small.close()


def test_y1_silent_servers_do_not_block_handshakes_of_others(
    farm: Farm, silence: Silence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "HANDSHAKES", 1)
    small = Sessions()

    def fail(number: int) -> None:
        with pytest.raises(RemoteError):
            ask(small, farm, 1, there=Endpoint(f"hole{number}", *silence.address, farm.host_key), seconds=5)

    holes = [threading.Thread(target=fail, args=(number,)) for number in range(3)]
    for thread in holes:
        thread.start()
    eventually(lambda: silence.connections == 3, "three connections that wait for a greeting")
    assert ask(small, farm, 1).ok and all(thread.is_alive() for thread in holes)
    for thread in holes:
        thread.join()
    small.close()
