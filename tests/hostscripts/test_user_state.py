"""State files of people: one per person, and a newer version's fields survive an older program."""

import json

import pytest
from labhost.errors import LabhostError
from labhost.host import user_state
from labhost.host.config import Host
from labhost.host.user_state import User

from tests.hostscripts import hosts


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return hosts.make(tmp_path_factory.mktemp("host"))


def test_a_saved_person_is_loaded_again(host: Host) -> None:
    user = User("alice", uid=1001, forwards=[[80, 30000]], limits={"memory": "1"})
    user_state.save_user(host, user)
    assert user_state.load_user(host, "alice") == user
    assert user_state.load_user(host, "bob") is None
    assert user_state.all_names(host) == ["alice"]


def test_unknown_fields_are_ignored_and_saved_again(host: Host) -> None:
    user_state.save_user(host, User("alice"))
    path = host.paths.state / "users/alice.json"
    newer = json.loads(path.read_text()) | {"quota": {"files": 7}, "port": 22001}
    path.write_text(json.dumps(newer))
    user = user_state.load_user(host, "alice")
    assert user is not None and user.port == 22001
    user.port = 22002
    user_state.save_user(host, user)
    assert json.loads(path.read_text()) == newer | {"port": 22002}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "bob"}', '{"name": "alice"'])
def test_a_damaged_file_is_an_error_that_names_it(host: Host, text: str) -> None:
    user_state.save_user(host, User("alice"))
    (host.paths.state / "users/alice.json").write_text(text)
    with pytest.raises(LabhostError, match=r"users/alice\.json is damaged") as caught:
        user_state.load_user(host, "alice")
    assert caught.value.reason == "file_damaged"
