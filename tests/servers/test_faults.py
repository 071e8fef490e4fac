"""Pushes over a bad network: whatever breaks, and wherever, the hosts end up with what the portal has."""

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


def test_the_proxy_passes_everything_on_in_good_weather(
    farm: Farm, proxy: Proxy, servers: list[Server], alice: User
) -> None:
    new_key(alice)
    assert {push.state for push in push().values()} == {"succeeded"} and proxy.connections == 1
    assert farm.register_file(ADDRESSES[0]) == expected()


BREAKS = ["cut_after", "reset_after", "lost_after"]


@pytest.mark.parametrize("kind", BREAKS)
def test_y2_a_connection_that_breaks_at_any_byte_delays_nobody_and_loses_nothing(
    farm: Farm, proxy: Proxy, servers: list[Server], alice: User, bob: User, kind: str
) -> None:
    chance = random.Random(kind)
    states = {"", *_fill([alice, bob])}
    failed = 0
    with Watcher(farm.folder / ADDRESSES[0] / "home/register/.ssh/authorized_keys") as watcher:
        for number in range(3 if kind == "lost_after" else 6):
            proxy.becomes(**{kind: chance.randrange(0, 1 + 9000 // (1 + number % 3))})
            new_key(alice)
            states.add(expected())
            done = push()
            failed += done["gpu17"].state == "failed"
            _the_other_is_served(farm, done)
            proxy.becomes()
            assert push().get("gpu17", done["gpu17"]).state == "succeeded"
            assert farm.register_file(ADDRESSES[0]) == expected()
    assert failed, "the weather was too good to show anything"
    assert set(watcher.seen) <= states, "a file that is neither the old nor the new one"
    assert all(len(births) == 1 for text, births in watcher.seen.items()), "written twice"


def _fill(people: list[User]) -> list[str]:
    """Some keys, so that a push is more than one packet; gives the states on the way."""
    states = []
    for _ in range(8):
        for user in people:
            new_key(user)
            states.append(expected())
    return states


def _the_other_is_served(farm: Farm, done: dict[str, Push]) -> None:
    late = done["gpu17"].finished_at
    assert done["gpu18"].state == "succeeded" and farm.register_file(ADDRESSES[1]) == expected()
    if done["gpu17"].state == "failed" and done["gpu17"].error == Message("timeout"):
        assert late and (finished := done["gpu18"].finished_at) and finished < late


@pytest.mark.parametrize("weather", [{"delay": 0.15}, {"bytes_per_second": 6000}], ids=["a long way", "a thin line"])
def test_y2_a_slow_network_is_waited_for_and_delays_nobody(
    farm: Farm,
    proxy: Proxy,
    servers: list[Server],
    alice: User,
    weather: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "SERVER_SECONDS", 30.0)
    proxy.becomes(**weather)
    new_key(alice)
    done = push()
    assert done["gpu17"].state == "succeeded" and farm.register_file(ADDRESSES[0]) == expected()
    slow, finished = done["gpu17"].finished_at, done["gpu18"].finished_at
    assert slow and finished and finished < slow


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", ["cut_after", "reset_after"])
def test_y2_a_connection_that_breaks_while_much_is_sent_is_one_error_and_no_traceback(
    farm: Farm, proxy: Proxy, servers: list[Server], kind: str
) -> None:
    farm.behave(ADDRESSES[0], "mute")
    for limit in range(200_000, 600_000, 50_000):
        proxy.becomes(**{kind: limit})
        with (
            pytest.raises(RemoteError, match=r"connection was lost|in time"),
            remote.connect(servers[0], seconds=10) as host,
        ):
            host.run("set-keys", [bytes(1_000_000) for _ in range(8)])


def test_y1_a_network_that_goes_away_with_a_connection_open_is_noticed_and_comes_back(
    farm: Farm, proxy: Proxy, servers: list[Server], alice: User
) -> None:
    new_key(alice)
    push()
    proxy.becomes(refuses=True)
    proxy.drop_all(reset=True)
    key = new_key(alice)
    done = push()
    assert done["gpu17"].state == "failed" and done["gpu18"].state == "succeeded"
    assert Server.objects.get(name="gpu17").state.applied_revision == keys.current_revision() - 1, (
        "never said before it is so"
    )
    proxy.becomes()
    assert push()["gpu17"].state == "succeeded"
    assert key in farm.register_file(ADDRESSES[0]) == expected()


def test_y2_a_push_that_is_applied_but_whose_answer_is_lost_is_made_again_and_writes_nothing(
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
        proxy.becomes(lost_after=0)
        is_cut.set()

    expected_now = expected()
    thread = threading.Thread(target=cut_when_it_is_written, daemon=True)
    proxy.becomes(delay=0.05)  # the answer is still on its way when the file is there
    thread.start()
    done = push()
    thread.join(10)
    assert is_cut.is_set() and done["gpu17"].state == "failed"
    born = path.stat().st_mtime_ns
    assert Server.objects.get(name="gpu17").state.applied_revision == keys.current_revision() - 1
    proxy.becomes()
    again = push()["gpu17"]
    assert (again.state, again.written) == ("succeeded", 0) and path.stat().st_mtime_ns == born
