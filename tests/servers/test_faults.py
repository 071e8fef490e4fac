"""Pushes over a bad network: after any fault the hosts have the keys of the portal in the end."""

import random
import threading
import time
from collections.abc import Iterator

import pytest
from django.utils import timezone

from accounts.models import User
from accounts.services import keys
from servers.models import Push, Server, ServerState
from servers.protocol import Message
from servers.services import remote
from servers.services.push import runner
from servers.ssh.dial import RemoteError
from tests.servers.conftest import make_server
from tests.servers.farm import ADDRESSES, Farm
from tests.servers.keyfile import Watcher, expected, new_key
from tests.servers.proxy import Proxy

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick"), pytest.mark.slow]
GRACE = 3.0  # seconds for one push: long enough for a busy machine, short enough to wait for


@pytest.fixture
def proxy(farm: Farm) -> Iterator[Proxy]:
    with Proxy((ADDRESSES[0], farm.port)) as proxy:
        yield proxy


@pytest.fixture
def servers(farm: Farm, proxy: Proxy, transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """gpu17 is behind the proxy, gpu18 is not."""
    monkeypatch.setattr(runner, "SERVER_SECONDS", GRACE)
    bad = make_server(farm, 0, address=proxy.address[0], ssh_port=proxy.address[1])
    return [bad, make_server(farm, 1)]


def push() -> dict[str, Push]:
    ServerState.objects.update(next_attempt=timezone.now())
    return {push.server.name: push for push in runner.push_due(actor="test")}


def test_the_proxy_forwards_everything_without_faults(
    farm: Farm, proxy: Proxy, servers: list[Server], alice: User
) -> None:
    new_key(alice)
    assert {push.state for push in push().values()} == {"succeeded"} and proxy.connections == 1
    assert farm.register_file(ADDRESSES[0]) == expected()


BREAKS = ["cut_after", "reset_after", "lost_after"]


@pytest.mark.parametrize("kind", BREAKS)
def test_y2_a_connection_that_breaks_at_any_byte_delays_no_other_and_loses_nothing(
    farm: Farm, proxy: Proxy, servers: list[Server], alice: User, bob: User, kind: str
) -> None:
    chance = random.Random(kind)
    states = {"", *_fill([alice, bob])}
    failed = 0
    with Watcher(farm.folder / ADDRESSES[0] / "home/register/.ssh/authorized_keys") as watcher:
        for number in range(3 if kind == "lost_after" else 6):
            proxy.set_faults(**{kind: chance.randrange(0, 1 + 9000 // (1 + number % 3))})
            new_key(alice)
            states.add(expected())
            done = push()
            failed += done["gpu17"].state == "failed"
            _other_server_is_up_to_date(farm, done)
            proxy.set_faults()
            assert push().get("gpu17", done["gpu17"]).state == "succeeded"
            assert farm.register_file(ADDRESSES[0]) == expected()
    assert failed, "there were too few faults to show anything"
    assert set(watcher.seen) <= states, "a file that is neither the old nor the new one"
    assert all(len(births) == 1 for text, births in watcher.seen.items()), "written twice"


def _fill(people: list[User]) -> list[str]:
    """Add keys, so that a push is more than one packet. Returns the states in between."""
    states = []
    for _ in range(8):
        for user in people:
            new_key(user)
            states.append(expected())
    return states


def _other_server_is_up_to_date(farm: Farm, done: dict[str, Push]) -> None:
    late = done["gpu17"].finished_at
    assert done["gpu18"].state == "succeeded" and farm.register_file(ADDRESSES[1]) == expected()
    if done["gpu17"].state == "failed" and done["gpu17"].error == Message("timeout"):
        assert late and (finished := done["gpu18"].finished_at) and finished < late


@pytest.mark.parametrize("faults", [{"delay": 0.15}, {"bytes_per_second": 6000}], ids=["high latency", "low bandwidth"])
def test_y2_a_slow_network_is_waited_for_and_delays_no_other(
    farm: Farm,
    proxy: Proxy,
    servers: list[Server],
    alice: User,
    faults: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "SERVER_SECONDS", 30.0)
    proxy.set_faults(**faults)
    new_key(alice)
    done = push()
    assert done["gpu17"].state == "succeeded" and farm.register_file(ADDRESSES[0]) == expected()
    slow, finished = done["gpu17"].finished_at, done["gpu18"].finished_at
    assert slow and finished and finished < slow


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", ["cut_after", "reset_after"])
def test_y2_a_connection_that_breaks_during_a_large_transfer_is_one_error(
    farm: Farm, proxy: Proxy, servers: list[Server], kind: str
) -> None:
    farm.behave(ADDRESSES[0], "mute")
    for limit in range(200_000, 600_000, 50_000):
        proxy.set_faults(**{kind: limit})
        with (
            pytest.raises(RemoteError, match=r"connection was lost|in time"),
            remote.connect(servers[0], seconds=10) as host,
        ):
            host.run("set-keys", [bytes(1_000_000) for _ in range(8)])


def test_y1_a_network_that_fails_with_an_open_connection_is_noticed_and_recovers(
    farm: Farm, proxy: Proxy, servers: list[Server], alice: User
) -> None:
    new_key(alice)
    push()
    proxy.set_faults(refuses=True)
    proxy.drop_all(reset=True)
    key = new_key(alice)
    done = push()
    assert done["gpu17"].state == "failed" and done["gpu18"].state == "succeeded"
    assert Server.objects.get(name="gpu17").state.applied_revision == keys.current_revision() - 1, (
        "shown as live before it is"
    )
    proxy.set_faults()
    assert push()["gpu17"].state == "succeeded"
    assert key in farm.register_file(ADDRESSES[0]) == expected()


def test_y2_an_applied_push_with_a_lost_answer_is_repeated_and_writes_nothing(
    farm: Farm, proxy: Proxy, servers: list[Server], alice: User
) -> None:
    new_key(alice)
    push()
    path = farm.folder / ADDRESSES[0] / "home/register/.ssh/authorized_keys"
    new_key(alice)
    is_cut = threading.Event()

    def cut_when_it_is_written() -> None:
        while path.read_text() != expected_now:
            time.sleep(0.001)
        proxy.set_faults(lost_after=0)
        is_cut.set()

    expected_now = expected()
    thread = threading.Thread(target=cut_when_it_is_written, daemon=True)
    proxy.set_faults(delay=0.2)  # the file is written before the answer arrives
    thread.start()
    done = push()
    thread.join(10)
    assert is_cut.is_set() and done["gpu17"].state == "failed"
    born = path.stat().st_mtime_ns
    assert Server.objects.get(name="gpu17").state.applied_revision == keys.current_revision() - 1
    proxy.set_faults()
    again = push()["gpu17"]
    assert (again.state, again.written) == ("succeeded", 0) and path.stat().st_mtime_ns == born
