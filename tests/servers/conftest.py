import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connections
from django.test import Client
from pytest_django.fixtures import Settings

from accounts.models import SSHKey, User
from accounts.services.keys import add_keys
from servers.models import Push, Server
from servers.services import remote
from servers.services.push import results, runner
from servers.ssh import sessions
from tests.accounts.keys import line
from tests.servers.farm import ADDRESSES, Farm
from tests.servers.silence import Silence

# Several threads write at once here. In memory they would share one cache, in which a writer fails instead of
# waiting for another; a file behaves as in production. Set before any test creates the database.
_folder = tempfile.TemporaryDirectory(prefix="lab-iam-test-")  # removed when the interpreter ends
if connections["default"].vendor == "sqlite":
    connections["default"].settings_dict["TEST"]["NAME"] = f"{_folder.name}/test.sqlite3"


@pytest.fixture(scope="session")
def _farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    if shutil.which("sshd", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("openssh-server is not installed")
    farm = Farm(tmp_path_factory.mktemp("farm"))
    farm.start()
    try:
        yield farm
    finally:
        farm.stop()


@pytest.fixture
def farm(_farm: Farm, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Farm]:
    """The running hosts, in their initial state. The portal logs in to them as the account that runs the tests."""
    _farm.reset()
    settings.PORTAL_KEY_FILE = _farm.iam_key
    monkeypatch.setattr(remote, "ACCOUNT", _farm.user)
    yield _farm
    sessions.pool().close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between pushes and no quick retry, for tests that are not about these."""
    monkeypatch.setattr(runner, "SPACING", runner.SPACING * 0)
    monkeypatch.setattr(results, "BACKOFF_FIRST", 60.0)


def make_server(farm: Farm, number: int = 0, name: str = "", **fields: object) -> Server:
    values = {
        "name": name or f"gpu{17 + number}",
        "address": ADDRESSES[number],
        "ssh_port": farm.port,
        "host_key": farm.host_key,
    }
    return Server.objects.create(**values | fields)


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """No thread of the runner outlives the test."""
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("serve")] == []


def started(work: Callable[[], object]) -> threading.Thread:
    """A running thread that does `work` and then closes its database connections."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def give_key(user: User, number: int = 0) -> SSHKey:
    return add_keys(actor=user.username, user=user, pasted=line(number)).added[0]


def push_due() -> list[Push]:
    """Make the pushes that are due. Returns them."""
    return runner.push_due(actor="test")


def key_body(number: int = 0) -> str:
    return " ".join(line(number).split()[:2])


@pytest.fixture
def server(db: None) -> Server:
    """A server as a database row only: for pages, not for SSH."""
    return Server.objects.create(name="gpu17", address="172.16.2.17", host_key=PINNED)


@pytest.fixture
def gpu18(db: None) -> Server:
    return Server.objects.create(name="gpu18", address="172.16.2.18", host_key=PINNED)


PINNED = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKMdoyDVJwgdHmHPSJj0Pz8jr1KeVhDdVkQqkkhKGlCb"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHS6DZCY2pPqPwtNXcpzJGM1cIEK5Y8ZZJfZK1jY3jXN"


@pytest.fixture
def silence() -> Iterator[Silence]:
    with Silence() as silence:
        yield silence


@pytest.fixture
def black_hole(silence: Silence) -> tuple[str, int]:
    """The address of a server that accepts connections and sends nothing."""
    return silence.address


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "portal_ed25519"


BACKEND = "accounts.backends.DirectoryBackend"


def signed_in(user: User) -> Client:
    """A test client that is signed in as this person."""
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client
