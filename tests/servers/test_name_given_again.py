"""O3 from the portal to the host's files: a new person with a used name inherits nothing."""

import pytest

from accounts.directory import Person
from accounts.models import User
from accounts.services import keys, people
from servers.models import Container, Server
from servers.services.push import runner
from tests.servers.conftest import give_key, make_server
from tests.servers.farm import ADDRESSES, Farm
from tests.servers.keyfile import expected

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


def push(server: Server) -> None:
    runner.request_push(actor="test", servers=[server])
    assert {push.state for push in runner.push_due(actor="test")} == {"succeeded"}


def test_o3_a_new_person_with_a_used_name_gets_no_old_key_number_or_container(farm: Farm, alice: User) -> None:
    server = make_server(farm)
    users = farm.folder / ADDRESSES[0] / "state/users"
    users.mkdir()
    container = users / "alice.json"
    container.write_text('{"name": "alice", "address": "10.0.3.160", "port": 22000}')
    old_key, old_port, old_block = give_key(alice).blob, alice.port.number, alice.subuids.start
    push(server)
    assert old_key in farm.register_file() and Container.objects.get().user == alice

    people.set_active(actor="warden", user=alice, active=False)
    push(server)
    assert farm.register_file() == ""
    with pytest.raises(people.PersonInUse, match="container"):
        people.delete(actor="warden", user=alice)
    with pytest.raises(people.PersonRefused, match="belonged to somebody else"):
        people.admit(Person("alice", "another-id", "Alice Newcomb"))

    container.unlink()  # by staff, on the server
    push(server)
    assert not Container.objects.exists()
    people.delete(actor="warden", user=alice)
    newcomer = people.admit(Person("alice", "another-id", "Alice Newcomb"))
    assert newcomer is not None and newcomer.pk != alice.pk
    push(server)
    assert farm.register_file() == "" and not newcomer.containers.exists() and not newcomer.ssh_keys.exists()
    assert newcomer.port.number != old_port and newcomer.subuids.start != old_block

    new_key = give_key(newcomer, 1).blob
    push(server)
    assert farm.register_file() == expected()
    assert new_key in farm.register_file() and old_key not in farm.register_file()
    assert keys.current_state().users.keys() == {"alice"}
