"""Real sshd, real keys, real time."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from servers import protocol, push_requests
from servers.ssh import host_keys
from servers.ssh.dial import Endpoint, RemoteError
from servers.ssh.host import Host, Login, ask, bounded, scan_host_key
from tests.accounts.keys import generated
from tests.lab.waiting import ends_within
from tests.servers.conftest import OTHER
from tests.servers.farm import ADDRESSES, Farm, gone_within, is_alive

HERE = ADDRESSES[0]


def login(farm: Farm) -> Login:
    return Login(farm.user, farm.iam_key)


def open_host(farm: Farm, *, seconds: float = 20, host_key: str | None = None) -> Host:
    return Host(farm.endpoint(host_key=host_key), login(farm), seconds=seconds)


def test_a_verb_is_answered(farm: Farm) -> None:
    with open_host(farm) as host:
        answer = ask(host, "status")
    assert answer.ok and answer.name == "gpu17" and answer.labhost and len(answer.build) == 12
    assert farm.commands() == ["status"]


def test_one_connection_serves_several_commands(farm: Farm) -> None:
    farm.behave(HERE, "shell")
    with open_host(farm) as host:
        assert host.run("echo one").stdout == b"one\n"
        assert host.run("exit 3").status == 3


def test_ten_megabytes_are_sent_and_received_complete(farm: Farm) -> None:
    farm.behave(HERE, "shell")
    data = bytes(range(256)) * 40_000
    with open_host(farm) as host:
        assert host.run("cat", [data[:1000], data[1000:]]).stdout == data


def test_progress_lines_arrive_while_the_command_runs_and_are_clean(farm: Farm) -> None:
    farm.behave(HERE, "shell")
    seen: list[str] = []
    came = farm.folder / "first_line_came"

    def on_line(text: str) -> None:
        seen.append(text)
        came.touch()

    with open_host(farm) as host:
        wait = f"while [ ! -e {came} ]; do sleep 0.02; done"
        result = host.run(f"printf 'one\\033[31m\\n' >&2; {wait}; echo two >&2; printf three >&2", on_line=on_line)
    came.unlink()
    assert seen == ["one?[31m", "two", "three"]
    assert result.tail == "one?[31m / two / three"


def test_a_command_that_ends_early_is_an_exit_status_not_a_fault(farm: Farm) -> None:
    farm.behave(HERE, "shell")
    with open_host(farm) as host:
        result = host.run("echo no room >&2; exit 7", [b"x" * 8_000_000])
    assert (result.status, result.tail) == (7, "no room")


def test_y5_an_unknown_host_key_is_refused_before_anything_is_sent(farm: Farm) -> None:
    with pytest.raises(RemoteError) as refused, open_host(farm, host_key=""):
        pass
    assert refused.value.code == "host_key_unknown" and refused.value.permanent
    assert farm.commands() == []


def test_y5_a_changed_host_key_is_refused_and_shown(farm: Farm) -> None:
    before = farm.log()
    with pytest.raises(RemoteError) as refused, open_host(farm, host_key=OTHER):
        pass
    assert refused.value.code == "host_key_changed" and refused.value.permanent
    assert refused.value.offered == farm.host_key
    assert refused.value.message.params["fingerprint"] == host_keys.fingerprint(farm.host_key)
    assert "Accepted" not in farm.log()[len(before) :] and farm.commands() == []


def test_y5_a_server_without_the_pinned_kind_of_key_is_refused(farm: Farm) -> None:
    pinned = host_keys.canonical(generated("ecdsa", 256)[0])
    with pytest.raises(RemoteError) as refused, open_host(farm, host_key=pinned):
        pass
    assert refused.value.code == "host_key_changed" and refused.value.offered == farm.host_key
    assert farm.commands() == []


def test_only_the_pinned_kind_of_key_is_requested(farm: Farm) -> None:
    with open_host(farm, host_key=farm.rsa_host_key) as host:
        assert ask(host, "status").ok


def test_a_portal_key_unknown_to_the_server_gives_a_clear_error(farm: Farm, tmp_path: object) -> None:
    other = farm.folder / "another_key"
    other.write_text(generated(number=7)[1])
    with pytest.raises(RemoteError) as refused, Host(farm.endpoint(), Login(farm.user, other), seconds=10):
        pass
    assert refused.value.code == "auth_refused" and "Check the account" in str(refused.value)


def test_a_missing_private_key_is_named(farm: Farm) -> None:
    nowhere = Login(farm.user, farm.folder / "nowhere")
    with pytest.raises(RemoteError, match="nowhere cannot be used") as refused:
        Host(farm.endpoint(), nowhere, seconds=10).__enter__()
    assert refused.value.code == "no_key"


def test_y1_a_refused_connection_is_reported_at_once(farm: Farm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    there = Endpoint("gpu17", "127.0.0.1", port, farm.host_key)
    with ends_within(10), pytest.raises(RemoteError, match="refused") as refused, Host(there, login(farm), seconds=30):
        pass
    assert refused.value.code == "unreachable"


def test_y1_an_unknown_host_name_is_reported_at_once(farm: Farm) -> None:
    there = Endpoint("gpu17", f"{'x' * 64}.invalid", 22, farm.host_key)  # such a name is not looked up
    with pytest.raises(RemoteError, match="has no address") as refused, Host(there, login(farm), seconds=10):
        pass
    assert refused.value.code == "unreachable"


def test_y1_a_silent_resolver_times_out(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    is_over, answered = threading.Event(), threading.Event()

    def silent(*_: object, **__: object) -> list[object]:
        is_over.wait(60)
        answered.set()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    with pytest.raises(RemoteError), Host(farm.endpoint("gpu17.lab"), login(farm), seconds=0.5):
        pass
    assert not answered.is_set()
    is_over.set()


def test_y1_an_unreachable_address_times_out(farm: Farm, black_hole: tuple[str, int]) -> None:
    there = Endpoint("gpu17", *black_hole, farm.host_key)
    with ends_within(12), pytest.raises(RemoteError), Host(there, login(farm), seconds=1.5):
        pass


@pytest.fixture
def slow_banner() -> Iterator[tuple[str, int]]:
    """Sends a banner and nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(listener.accept()[0])
                    kept[-1].sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


def test_y2_a_host_that_hangs_after_the_banner_times_out(farm: Farm, slow_banner: tuple[str, int]) -> None:
    there = Endpoint("gpu17", *slow_banner, farm.host_key)
    with ends_within(12), pytest.raises(RemoteError) as refused, Host(there, login(farm), seconds=1.5):
        pass
    assert refused.value.code == "timeout"


@pytest.mark.parametrize("behaviour", ["deaf", "mute"])
def test_y2_a_host_that_hangs_during_the_transfer_or_before_the_answer_times_out(farm: Farm, behaviour: str) -> None:
    farm.behave(HERE, behaviour)
    with ends_within(12), pytest.raises(RemoteError) as refused, open_host(farm, seconds=2) as host:
        host.run("set-keys", [b"x" * 12_000_000])
    assert refused.value.code == "timeout"


def test_y2_an_interrupted_transfer_ends_the_real_host_program_and_applies_nothing(farm: Farm) -> None:
    framed = protocol.frame(
        push_requests.build_set_keys(push_requests.Step(1, protocol.digest({"alice": []})), {"alice": []}, {})
    )

    def half() -> Iterator[bytes]:
        yield framed[: len(framed) // 2]
        time.sleep(3)

    with pytest.raises(RemoteError), open_host(farm, seconds=1.5) as host:
        host.run("set-keys", half())
    (pid,) = farm.pids()
    assert gone_within(pid, 5), "labhost still waits for the rest"
    assert not farm.keys_database(HERE).exists()


def test_y2_a_command_with_a_deadline_ends_on_the_host_too(farm: Farm) -> None:
    farm.behave(HERE, "shell")
    with pytest.raises(RemoteError) as refused, open_host(farm, seconds=1) as host:
        host.run(bounded("sleep 300", seconds=3, sudo=False))
    assert refused.value.code == "timeout"
    (pid,) = farm.pids()
    assert is_alive(pid), "it ended with the connection, so this test proves nothing"
    assert gone_within(pid, 6)


def test_an_endless_answer_is_cut_off(farm: Farm) -> None:
    farm.behave(HERE, "flood")
    with pytest.raises(RemoteError, match="too long") as refused, open_host(farm) as host:
        host.run("status", most=1_000_000)
    assert refused.value.code == "bad_answer"
    assert gone_within(farm.pids()[0], 5)


def test_an_invalid_answer_is_reported_with_the_last_output(farm: Farm) -> None:
    farm.behave(HERE, "garbage")
    with pytest.raises(RemoteError) as refused, open_host(farm) as host:
        ask(host, "status")
    assert refused.value.code == "bad_answer"
    assert refused.value.message.params == {"detail": "its answer is not JSON (sudo: ?[31ma password is required)"}


def test_a_success_needs_exit_status_0_too(farm: Farm) -> None:
    farm.behave(HERE, "shell")
    with pytest.raises(RemoteError, match="disagree"), open_host(farm) as host:
        ask(host, """echo '{"version":1,"ok":true}'; exit 1""")


def test_the_host_key_of_a_new_server_is_its_ed25519_key(farm: Farm) -> None:
    assert scan_host_key(HERE, farm.port) == farm.host_key
    assert farm.commands() == []


def test_y1_a_scan_of_an_unreachable_address_times_out(black_hole: tuple[str, int]) -> None:
    with ends_within(12), pytest.raises(RemoteError) as refused:
        scan_host_key(*black_hole, seconds=1)
    assert refused.value.code == "unreachable"


def test_neither_agent_nor_own_keys_nor_ssh_config_is_used(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    home = farm.folder / "person"
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    (home / ".ssh/config").write_text(f"Host *\n  Port 1\n  HostName 127.0.0.99\n  IdentityFile {farm.iam_key}\n")
    (home / ".ssh/id_ed25519").write_bytes(farm.iam_key.read_bytes())
    monkeypatch.setenv("HOME", str(home))
    other = farm.folder / "wrong_key"
    other.write_text(generated(number=8)[1])
    with pytest.raises(RemoteError) as refused, Host(farm.endpoint(), Login(farm.user, other), seconds=10):
        pass
    assert refused.value.code == "auth_refused"
    with open_host(farm) as host:
        assert ask(host, "status").ok


def test_a_traceback_of_the_library_is_never_logged(
    farm: Farm, black_hole: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    there = Endpoint("gpu17", *black_hole, farm.host_key)
    with pytest.raises(RemoteError), Host(there, login(farm), seconds=1):
        pass
    assert [record for record in caplog.records if "paramiko" in record.name] == []
